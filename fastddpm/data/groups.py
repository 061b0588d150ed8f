"""Images that belong together, so that a split never parts them: made from one picture, of one part, or near-copies."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import PurePosixPath

import numpy as np

from fastddpm.data.ingest import ImageSet
from fastddpm.data.siblings import components, near_copies
from fastddpm.data.sources.base import COLUMN, sources_in
from fastddpm.data.store import NAMES, told_groups, unpacked
from fastddpm.files import write_bytes

NONE = "none"
MAX_COMPARED = 200_000
"""images of a set in which near-copies are looked for: it takes as long as their number squared"""
_FILE = "near_copies.bin"
_log = logging.getLogger(__name__)


def groups_of(images: ImageSet, rule: str | None) -> np.ndarray:
    """Number the groups of a store's images.

    Args:
        rule: as `data.group`.
    Returns: (N,), int64, equal for images that belong together.
    Raises: ValueError: a rule that names no folder, or matches no name.
    """
    count = len(images.images)
    if rule == NONE:
        return np.arange(count)
    kept = np.load(images.folder / NAMES)
    owners = np.append(np.arange(count), images.duplicates[:, 0])
    told = told_groups(kept)
    if rule is None:
        return joined(near_copies_of(images), zip(owners, map(sources_in, told), strict=True))
    if not any(group.startswith(COLUMN) for group in told):
        told = _by_rule(unpacked(kept), rule)
    return joined(np.arange(count), ((owner, [group]) for owner, group in zip(owners, told, strict=True) if group))


def near_copies_of(images: ImageSet) -> np.ndarray:
    """Find the near-copies among a store's images, as `near_copies` does, once: they are kept in the store."""
    path = images.folder / _FILE
    with suppress(OSError, ValueError):
        if len(found := np.fromfile(path, np.int64)) == len(images.images):
            return found
    if len(images.images) > MAX_COMPARED:
        _log.warning("more than %s images: near-copies among them are not looked for", f"{MAX_COMPARED:,}")
        return np.arange(len(images.images))
    found = near_copies(images.images)
    with suppress(OSError):  # a store that may only be read
        write_bytes(path, found.astype(np.int64).tobytes())
    return found


def joined(groups: np.ndarray, further: Iterable[tuple[int, Sequence[str]]]) -> np.ndarray:
    """Join groups that have a further one in common.

    Args:
        groups: (N,), int64, below N.
        further: images, and names of groups that each of them is in too.
    Returns: (N,), int64.
    """
    number: dict[str, int] = {}
    pairs = [(at, len(groups) + number.setdefault(name, len(number))) for at, names in further for name in names]
    if not pairs:
        return groups
    rows, columns = np.concatenate([np.column_stack([np.arange(len(groups)), groups]), np.array(pairs)]).T
    size = len(groups) + len(number)
    return components(size, rows, columns)[: len(groups)]


def _by_rule(names: Sequence[str], rule: str) -> list[str]:
    if rule.isdecimal():
        folders = [PurePosixPath(name).parts[:-1] for name in names]
        if max(map(len, folders)) <= int(rule):
            raise ValueError(
                f"data.group is {rule}, but {names[0]} lies in {max(map(len, folders))} folders; count from 0"
            )
        return ["/".join(parts[: int(rule) + 1]) if len(parts) > int(rule) else "" for parts in folders]
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ValueError(f"data.group {rule!r} is no regular expression: {error}") from error
    matches = [pattern.search(name) for name in names]
    if not any(matches):
        raise ValueError(
            f"data.group {rule!r} matches no name, such as {names[0]}, and is no column; give a column, a level of "
            "folders, or a regular expression"
        )
    return [match[match.re.groups and 1] or "" if match else "" for match in matches]


def drawn_whole(order: np.ndarray, groups: np.ndarray, count: int, labels: np.ndarray | None) -> np.ndarray:
    """Draw the images that are held out: whole groups, and never the last image of a class.

    Args:
        order: images of a split in random order.
        groups: (N,), int64, of all images.
        count: the number of images wanted; what groups cannot fill stays empty.
        labels: (N,), int64; None: no classes.
    Returns: (at most count,), int64: without groups, and with images left of each class, the first of the order.
    """
    sizes = Counter(groups[order].tolist())
    left = Counter() if labels is None else Counter(labels[order].tolist())
    of_group: dict[int, list[int]] = {}
    if max(sizes.values(), default=1) > 1:
        for image in order.tolist():
            of_group.setdefault(int(groups[image]), []).append(image)
    drawn: list[int] = []
    seen = set()
    for image in order.tolist():
        if len(drawn) == count:
            break
        group = int(groups[image])
        members = of_group.get(group, [image])
        if group in seen or len(drawn) + len(members) > count:
            continue
        seen.add(group)
        taken = Counter() if labels is None else Counter(labels[members].tolist())
        if all(left[label] > number for label, number in taken.items()):
            left -= taken
            drawn += members
    return np.array(drawn, dtype=np.int64)
