"""Labels that are classes, told from those that are none: these are left alone, and that is said."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fastddpm.data.sources.base import Contents, Picture, Pictures

NO_COLUMN = "none"
"""value of `label_column` for no labels"""
MAX_LABEL = 999_999
"""classes are numbered from 0; a larger number is no class but an id or a time"""


@dataclass(frozen=True)
class Classes:
    """Classes that labels mean."""

    number_of: Callable[[Any], int | None] = lambda _: None
    """the number of a label's class; None: the label is no class"""
    names: tuple[str, ...] | None = None
    """the name of each number; None: no classes, or numbers without names"""
    why_none: str | None = None
    """reason that the labels are left alone"""


NO_CLASSES = Classes()


def classes_of(labels: Iterable[Any], where: str, *, count: int, names: tuple[str, ...] | None = None) -> Classes:
    """Tell whether labels are words or numbers that name classes.

    Args:
        labels: of all images, or each of them once; none: of a stream, where they come later.
        where: the place that they are from, for messages.
        count: number of images; as many different words are no classes.
        names: the names of all classes, where they are known.
    """
    seen = list(labels)
    words = {label for label in seen if isinstance(label, str) and label}
    names = tuple(sorted(words)) if words and names is None else names
    by_name = {name: number for number, name in enumerate(names or ())}
    most = MAX_LABEL if names is None else len(names) - 1

    def number_of(label: Any) -> int | None:
        number = by_name.get(label) if isinstance(label, str) else label
        return int(number) if isinstance(number, int) and 0 <= number <= most else None

    odd = [label for label in seen if (words and not isinstance(label, str)) or number_of(label) is None]
    if odd or len(words) == count > 1:
        got = repr(odd[0])[:60] if odd else "another text for every image"
        return Classes(why_none=f"{where} has {got}; wanted words, or whole numbers from 0, that are classes")
    return Classes(number_of, names)


def changed(
    contents: Contents,
    change: Callable[[Picture], Picture],
    names: tuple[str, ...] | None = None,
    why: str | None = None,
) -> Contents:
    """The same pictures, each changed when it is its turn.

    Args:
        names, why: `label_names` and `no_labels` of what they become.
    """

    def start_at(pictures: Pictures, first: int) -> Iterator[Picture]:
        return map(change, pictures.start_at(first))

    splits = {of: replace(p, start_at=partial(start_at, p), no_labels=why) for of, p in contents.splits.items()}
    return replace(contents, splits=splits, label_names=names)
