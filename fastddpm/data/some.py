"""A few pictures of any source, with their names: what a user names to start from, not what is trained on."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from fastddpm.config import DataConfig
from fastddpm.data.decode import BadImage, Fit, decode, inspect
from fastddpm.data.sources import Picture, find_source
from fastddpm.data.sources.files import is_image, open_file, printable

_ROWS = re.compile(r"(?P<source>.+)#(?P<first>\d+)(:(?P<end>\d*))?")


@dataclass(frozen=True)
class SomeImages:
    """Images and where they are from."""

    images: np.ndarray
    """(N, C, H, W), uint8"""
    names: list[str]
    """N: the name of a file, or of a source and its row"""
    num_fitted: int
    """of them had another size, and were scaled and cut at the middle"""


def read_some(words: Sequence[str], image_shape: tuple[int, int, int]) -> SomeImages:
    """Read the pictures that `words` name, in order, and make them fit as training does.

    Args:
        words: image files; or any `data.source` (a folder, zip, array, table, "digits"), whole, or with rows:
            `SOURCE#5`, `SOURCE#5:9`, `SOURCE#5:`, counted from 0 in the source's own order.
        image_shape: (C, H, W) of the images; pictures are scaled to it if it is square, else must have its size.
    Raises: ValueError: nothing there, no such rows, or a picture that cannot be used; the message names it.
    """
    channels, height, width = image_shape
    fit = Fit(channels, height if height == width else None)
    images, names, num_fitted = [], [], 0
    for picture in (picture for word in words for picture in _pictures(word)):
        try:
            if picture.pixels is None:
                inspect(picture.open)
            pixels, header = decode(picture.open, fit)
        except BadImage as error:
            raise ValueError(f"{picture.name} {error}") from error
        if pixels.shape != image_shape:
            raise ValueError(
                f"{picture.name} is {header.size[0]}x{header.size[1]}; the model makes {width}x{height}, which is no "
                f"square: scale the image to that first"
            )
        images.append(pixels)
        names.append(picture.name)
        num_fitted += header.size != (width, height)
    return SomeImages(np.stack(images), names, num_fitted)


def rows_of(word: str) -> tuple[str, int, int | None]:
    """(source, first row, the row after the last; None: all that follow) of a word such as `SOURCE#5:9`."""
    rows = _ROWS.fullmatch(word) if not Path(word).expanduser().exists() else None
    if rows is None:
        return word, 0, None
    first = int(rows["first"])
    return rows["source"], first, {None: first + 1, "": None}.get(rows["end"], int(rows["end"] or 0))


def _pictures(word: str) -> Iterator[Picture]:
    path = Path(word).expanduser()
    if path.is_file() and is_image(path.name):
        yield Picture(printable(str(word)), lambda: open_file(path))
        return
    source, first, end = rows_of(word)
    try:
        contents = find_source(DataConfig(source=source)).load()
    except ValueError as error:
        raise ValueError(str(error).replace("data.source ", "", 1)) from error
    everything = (picture for pictures in contents.splits.values() for picture in pictures.start_at(0))
    chosen = islice(everything, first, end)
    found = next(chosen, None)
    if found is None or (end is not None and end <= first):
        raise ValueError(f"{word} names no image: {source} has none at {first}, or the rows end before they begin")
    yield found
    yield from chosen
