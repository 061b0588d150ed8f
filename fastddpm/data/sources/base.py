"""Parts of a source."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from fastddpm.data.decode import Header

WHOLE = "all"
"""the split of a source that has none"""
KINDS = (
    '"digits", a folder, .zip or .tar of images, a .csv list, an IDX, .npz, .npy or .parquet file, or the name of a '
    "data set"
)
"""kinds of sources"""
SPLIT_NAMES = ("train", "valid", "val", "validation", "test")
"""folders of these names, "train" among them, are splits and not classes"""


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """One picture, not yet opened."""

    name: str
    """name for messages"""
    open: Callable[[], Image.Image]
    """opens it anew each time; raises what Pillow raises, or `BadImage`"""
    label: int | None = None
    pixels: np.ndarray | None = None
    """(H, W) or (H, W, C), uint8, where they need not be decoded"""
    group: str | None = None
    """equal for pictures that were made from the same ones; None: not known"""


@dataclass(frozen=True)
class Pictures:
    """The pictures of one split, in an order that stays."""

    start_at: Callable[[int], Iterator[Picture]]
    """all but the first so many"""
    count: int | None = None
    """None: known at the end only"""
    header: Header | None = None
    """header that all of them have in common, where that is known without opening one"""
    no_labels: str | None = None
    """reason that labels which are there are left alone"""


@dataclass(frozen=True)
class Contents:
    """Pictures of a source, split by split."""

    splits: Mapping[str, Pictures]
    """pictures by the name of their split; `WHOLE` alone if the source knows none"""
    label_names: tuple[str, ...] | None = None
    """the name of each label; None: no labels, or numbers without names"""


@dataclass(frozen=True)
class Source:
    """A source that was found, not yet read."""

    load: Callable[[], Contents]
    """reads what the pictures need; raises ValueError on a file that is not what its name says"""
    stamps: dict[str, Any] = field(default_factory=lambda: {"files": {}, "folders": {}})
    """see `data.store`"""
    other_files: tuple[str, ...] = ()
    """files of the folder that are not used: of other kinds, or not listed"""
    takes: tuple[str, ...] = ()
    """settings of columns and streams that mean something here"""


def indexed(picture_at: Callable[[int], Picture], count: int, header: Header | None = None) -> Pictures:
    """Pictures that can be had in any order."""
    return Pictures(lambda first: map(picture_at, range(first, count)), count, header)


def split_and_label(
    paths: Sequence[str], open_at: Callable[[int], Image.Image]
) -> tuple[dict[str, Pictures], tuple[str, ...] | None]:
    """Splits and classes of files by their folders.

    One folder around everything counts for nothing. First-level folders are splits if they are named so
    (`SPLIT_NAMES`); below that, they are classes if there are two or more, and no image lies outside of them.

    Args:
        paths: relative, with slashes.
        open_at: opens the picture of the path at an index.
    Returns: pictures by split, and the names of the classes or None.
    """
    inner = _below_common_folder(paths)
    tops = {_top(path) for path in inner}
    has_splits = "train" in tops and tops <= set(SPLIT_NAMES)
    places = [path.partition("/") if has_splits else (WHOLE, "", path) for path in inner]
    classes = sorted({_top(rest) for _, _, rest in places})
    label_of = {name: label for label, name in enumerate(classes)} if "" not in classes and len(classes) > 1 else {}
    if "" in classes and len(classes) > 2:
        outside = paths[next(index for index, (_, _, rest) in enumerate(places) if not _top(rest))]
        _log.warning(
            "no labels: the folders %s would be classes or splits, but %s lies outside of them",
            ", ".join(classes[1:6]) + (", ..." if len(classes) > 6 else ""),
            outside,
        )

    def picture_at(indices: Sequence[int], place: int) -> Picture:
        index = indices[place]
        return Picture(printable(paths[index]), partial(open_at, index), label_of.get(_top(places[index][2])))

    found = {}
    for split in sorted({split for split, _, _ in places}):
        indices = [index for index, (of, _, _) in enumerate(places) if of == split]
        found[split] = indexed(partial(picture_at, indices), len(indices))
    return found, tuple(map(printable, classes)) if label_of else None


def _top(path: str) -> str:
    return path.partition("/")[0] if "/" in path else ""


def _below_common_folder(paths: Sequence[str]) -> list[str]:
    """A zip, or what comes out of it, often holds one folder that holds everything: it is no class."""
    inner = list(paths)
    while len(tops := {_top(path) for path in inner}) == 1 and not tops & {"", "train"}:
        inner = [path.partition("/")[2] for path in inner]
    return inner


def printable(name: str) -> str:
    """A file's name as any file or terminal takes it: line breaks, and bytes that are no UTF-8, are escaped."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)
