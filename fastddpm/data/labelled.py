"""A whole labelled source with the name and the label of each picture: what new images are made from."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from fastddpm.config import DataConfig
from fastddpm.data.decode import BadImage, Fit, decode, inspect
from fastddpm.data.some import rows_of
from fastddpm.data.sources import Contents, Picture, Pictures, find_source


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images, each with its label and the name of where it is from."""

    images: np.ndarray
    """(N, C, H, W), uint8"""
    labels: np.ndarray
    """(N,), int64, below the number of `label_names`"""
    label_names: tuple[str, ...]
    names: list[str]
    """N: the name of a file, or of a split and a row"""


def read_labelled(
    word: str,
    image_shape: tuple[int, int, int],
    *,
    split: str | None = None,
    resize: bool = False,
    subset: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> LabelledImages:
    """Read a split of a labelled source into memory, in the source's own order.

    Args:
        word: any `data.source`, or rows of one, as of `read_some`.
        image_shape: (C, H, W) of the images.
        split: which one, of a source with named splits; None: the only one, else train.
        resize: make pictures of other sizes and modes fit, as training does; square images only.
        subset, image_column, label_column: of a table, as in `DataConfig`.
    Raises: ValueError: nothing there, no such split or rows, no labels, pictures that cannot be used (all are named),
        or of another size or other channels.
    """
    source, first, end = rows_of(word)
    try:
        config = DataConfig(source=source, subset=subset, image_column=image_column, label_column=label_column)
        contents = find_source(config).load()
    except ValueError as error:
        raise ValueError(str(error).replace("data.source ", "", 1)) from error
    pictures = _split_of(contents, source, split)
    chosen = islice(pictures.start_at(first), None if end is None else max(0, end - first))
    images, labels, names = _read(chosen, word, image_shape, resize)
    label_names = contents.label_names
    if label_names is None:  # those of all rows, whichever were chosen
        most = max(picture.label or 0 for picture in pictures.start_at(0))
        label_names = tuple(str(label) for label in range(most + 1))
    return LabelledImages(np.stack(images), np.array(labels, dtype=np.int64), label_names, names)


def _split_of(contents: Contents, source: str, split: str | None) -> Pictures:
    found = list(contents.splits)
    wanted = split or (found[0] if len(found) == 1 else "train")
    if wanted not in found:
        raise ValueError(f"{source} has the splits {', '.join(found)}, wanted {wanted!r}; say which with --split")
    return contents.splits[wanted]


def _read(
    pictures: Iterator[Picture],
    word: str,
    image_shape: tuple[int, int, int],
    resize: bool,
) -> tuple[list[np.ndarray], list[int], list[str]]:
    images: list[np.ndarray] = []
    labels: list[int] = []
    names: list[str] = []
    bad: list[str] = []
    for picture in pictures:
        try:
            pixels = _pixels_of(picture, image_shape, resize)
        except BadImage as error:
            bad.append(f"  {picture.name} {error}")
            continue
        if picture.label is None:
            raise ValueError(
                f"{word} has no labels ({picture.name} has none); wanted class folders, a table with a column of "
                "classes (say which with --label_column), or another labelled source"
            )
        images.append(pixels)
        labels.append(picture.label)
        names.append(picture.name)
    if bad:
        listed = "\n".join([*bad[:20], *([f"  ... and {len(bad) - 20} more"] if len(bad) > 20 else [])])
        raise ValueError(f"{len(bad)} pictures of {word} cannot be used:\n{listed}\nmend or remove them")
    if not images:
        raise ValueError(f"{word} names no image: its rows end before they begin, or it has none there")
    return images, labels, names


def _pixels_of(picture: Picture, image_shape: tuple[int, int, int], resize: bool) -> np.ndarray:
    """Raises: BadImage: unreadable, or of another size or other channels."""
    channels, height, width = image_shape
    if picture.pixels is None:
        inspect(picture.open)
    pixels, header = decode(picture.open, Fit(channels, height if resize and height == width else None))
    if header.is_colour != (channels == 3) and not resize:
        got, wanted = (("grayscale", "colour")[is_colour] for is_colour in (header.is_colour, channels == 3))
        raise BadImage(f"is {got}, the model's images are {wanted}; {_WAY_OUT}")
    if pixels.shape != image_shape:
        raise BadImage(f"is {header.size[0]}x{header.size[1]}, the model's images are {width}x{height}; {_WAY_OUT}")
    return pixels


_WAY_OUT = "convert it first, or use --resize to have all made to fit as training does"
