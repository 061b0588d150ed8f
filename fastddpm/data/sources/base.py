"""Parts of a source."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from fastddpm.data.decode import Header

COLUMN = "="
"""first letter of a picture's group that is the value of a column"""
WHOLE = "all"
"""the split of a source that has none"""
KINDS = (
    '"digits", a folder, .zip or .tar of images, a .csv list, an IDX, .npz, .npy or .parquet file, or the name of a '
    "data set"
)
"""kinds of sources"""


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
    masks: tuple["Picture", ...] = ()
    """pictures of where something is wrong in it"""


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
    layout: str | None = None
    """meaning of its folders, in a line"""
    has_defects: bool = False
    """labels of `train` are names of what is normal, others are kinds of defects"""


@dataclass(frozen=True)
class Source:
    """A source that was found, not yet read."""

    load: Callable[..., Contents]
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


def sources_in(group: str) -> list[str]:
    """Names of the pictures that one was made from, of a picture's `group`."""
    found = json.loads(group) if group.startswith(("[", '"', "{")) else group
    names = found if isinstance(found, list) else [found]
    return [name if isinstance(name, str) else json.dumps(name, sort_keys=True) for name in names if name]


def printable(name: str) -> str:
    """A file's name as any file or terminal takes it: line breaks, and bytes that are no UTF-8, are escaped."""
    return (
        name
        if name.isprintable()
        else "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)
    )
