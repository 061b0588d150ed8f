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


def _end_of(rows: re.Match[str] | None, first: int) -> int | None:
    if rows is None or rows["end"] == "":
        return None
    return first + 1 if rows["end"] is None else int(rows["end"])


def _pictures(word: str) -> Iterator[Picture]:
    path = Path(word).expanduser()
    if path.is_file() and is_image(path.name):
        yield Picture(printable(str(word)), lambda: open_file(path))
        return
    rows = _ROWS.fullmatch(word) if not path.exists() else None
    source = word if rows is None else rows["source"]
    first = 0 if rows is None else int(rows["first"])
    end = _end_of(rows, first)
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
