"""Pictures of a run that lie elsewhere or changed: which are there still, and into which parts new ones go."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from fastddpm.config import DataConfig
from fastddpm.data.groups import drawn_whole, groups_of
from fastddpm.data.ingest import ImageSet
from fastddpm.data.splits import num_held_out_of
from fastddpm.data.store import HASH_BYTES, NAMES, packed, unpacked
from fastddpm.process import some

if TYPE_CHECKING:
    from fastddpm.data.kept_pictures import KeptPictures

NEITHER, TRAIN, HELD_OUT = 0, 1, 2


@dataclass
class Change:
    """Names of pictures by what happened to them; false if nothing did."""

    names: dict[str, list[str]] = field(default_factory=dict)
    classes: str = ""
    """classes as they were and as they are, if these differ"""
    renewed: dict[int, int] = field(default_factory=dict)
    """image -> row of what had its name, of other pixels"""

    def __bool__(self) -> bool:
        return any(self.names.values()) or self.classes != ""

    def __str__(self) -> str:
        said = [f"{len(names):,} {what} ({some(sorted(names))})" for what, names in self.names.items() if names]
        return ", ".join(said + [self.classes] * (self.classes != ""))


def carried_over(
    kept: "KeptPictures", images: ImageSet, config: DataConfig, ways: str, keeps_classes: bool
) -> "tuple[KeptPictures, Change]":
    """The pictures of a run in another store: each keeps its part, by its pixels or else by its name; new ones are held
    out, in the order of their content, up to what `num_held_out` asks for.

    Raises: ValueError: see `kept_pictures.load_kept`.
    """
    at = _found(kept.hashes, images.hashes)
    change, shape = _compared(kept, images, at), list(images.images.shape[1:])
    if change and (not config.allow_change or (keeps_classes and change.classes) or shape != kept.facts["image_shape"]):
        fixed = "the network was built for its classes and their size: " if config.allow_change else ""
        raise ValueError(f"{config.source} is not what the run was trained on: {change}; {fixed}{ways}")
    parts, known, gone = np.zeros(len(images.hashes), np.uint8), at >= 0, np.flatnonzero(at < 0)
    parts[at[known]] = kept.parts[known]
    parts[[*change.renewed]] = kept.parts[[*change.renewed.values()]]
    is_new = ~np.isin(np.arange(len(parts)), np.concatenate([at, np.array([*change.renewed], np.int64)]))
    _draw_new(np.flatnonzero(is_new), parts, images, config)
    copies = np.column_stack([at[kept.copies[:, 0]], kept.copies[:, 1:]])
    facts = {**kept.facts, "store": images.fingerprint, "label_names": images.label_names, "num_now": len(parts)}
    train, held_out = _in_order(at[kept.train], parts == TRAIN), _in_order(at[kept.held_out], parts == HELD_OUT)
    if change:
        copies, room = images.duplicates, None if config.num_images is None else config.num_images - len(train)
        part_of_copies = parts[copies[copies[:, 2] == 0, 0]]
        facts["num_copies"] = len(part_of_copies[part_of_copies == TRAIN][: room and max(0, room)])
        facts["num_left_out"] = int((part_of_copies == HELD_OUT).sum())
        content = images.fingerprint.encode() + train.tobytes() + held_out.tobytes()
        facts["fingerprint"] = hashlib.sha256(content).hexdigest()
    old, new = unpacked(kept.names) if len(gone) else [], unpacked(np.load(images.folder / NAMES))
    place = np.where(gone < kept.facts["num_now"], gone, gone + len(kept.copies)).tolist()
    return replace(
        kept, facts=facts, hashes=np.concatenate([images.hashes, kept.hashes[gone]]),
        labels=np.concatenate([labels_of(images), kept.labels[gone]]),
        parts=np.concatenate([parts, kept.parts[gone]]), copies=copies, train=train, held_out=held_out,
        names=packed([*new, *(old[row] for row in place)]),
    ), change  # fmt: skip


def _draw_new(new: np.ndarray, parts: np.ndarray, images: ImageSet, config: DataConfig) -> None:
    """Put images that a run has not seen into parts: what belongs together with images that it knows, into theirs."""
    first, last = images.splits[next(iter(images.splits))], images.splits[list(images.splits)[-1]]
    new = new[np.argsort(_keys(images.hashes[new]), kind="stable")]
    wanted = num_held_out_of(config.num_held_out, len(last)) - int((parts == HELD_OUT).sum())
    if wanted > 0 or (parts == HELD_OUT).any():
        groups = groups_of(images, config.group)
        new_groups = groups[new]
        is_apart = ~np.isin(new_groups, groups[parts == TRAIN])
        parts[new[is_apart & np.isin(new_groups, groups[parts == HELD_OUT])]] = HELD_OUT
        is_free = is_apart & (parts[new] == NEITHER) & (new >= last.start) & (new < last.stop)
        wanted = num_held_out_of(config.num_held_out, len(last)) - int((parts == HELD_OUT).sum())
        parts[drawn_whole(new[is_free], groups, max(0, wanted), None)] = HELD_OUT
    free = new[(new >= first.start) & (new < first.stop) & (parts[new] == NEITHER)]
    room = None if config.num_images is None else max(0, config.num_images - int((parts == TRAIN).sum()))
    parts[free[:room]] = TRAIN


def _in_order(before: np.ndarray, is_in: np.ndarray) -> np.ndarray:
    """Images of a part: those that were in it in their order, then others."""
    known = before[before >= 0]
    return np.concatenate([known, np.setdiff1d(np.flatnonzero(is_in), known)])


def labels_of(images: ImageSet) -> np.ndarray:
    """(N,), int64; -1: none."""
    return np.full(len(images.hashes), -1) if images.labels is None else np.asarray(images.labels)


def _keys(hashes: np.ndarray) -> np.ndarray:
    """(N,), sortable; all of one size, so that trailing zeros cannot make two of them equal."""
    return np.ascontiguousarray(hashes).view(f"S{HASH_BYTES}").reshape(-1)


def _found(hashes: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Places in `among`, in which no two are equal; -1: not there."""
    wanted, have = _keys(hashes), _keys(among)
    order = np.argsort(have, kind="stable")
    places = order[np.searchsorted(have, wanted, sorter=order).clip(max=len(have) - 1)]
    return np.where(have[places] == wanted, places, -1)


def _compared(kept: "KeptPictures", images: ImageSet, at: np.ndarray) -> Change:
    """Compare pictures, copies included, by content; only where that differs, by name."""
    change, before, now = Change(), kept.facts["label_names"], images.label_names
    if list(before or ()) != list(now or ()):
        change.classes = f"its classes were {some(before or ['none'])}, now {some(now or ['none'])}"
    num_now, num_new = kept.facts["num_now"], len(images.hashes)
    content = np.where(at >= 0, at, -1 - np.arange(len(at)))  # of a picture that is gone: below 0
    old = np.append(content[:num_now], content[kept.copies[:, 0]])
    new = np.append(np.arange(num_new), images.duplicates[:, 0])
    more = np.bincount(new, minlength=num_new) - np.bincount(old[old >= 0], minlength=num_new)
    there, labels = np.flatnonzero(at[:num_now] >= 0), labels_of(images)
    is_moved = np.zeros(len(there), bool)
    if before and now:
        numbers = np.array([*(list(now).index(name) if name in now else -1 for name in before), len(now)])
        is_moved = numbers[kept.labels[there]] != labels[at[there]]
    if not more.any() and (old >= 0).all() and not is_moved.any():
        return change
    names = unpacked(np.load(images.folder / NAMES))
    was, has = dict(zip(unpacked(kept.names), old.tolist(), strict=False)), dict(zip(names, new.tolist(), strict=True))
    lost, extra = _surplus(was, has, -more), _surplus(has, was, more)
    changed = lost.keys() & extra.keys()
    change.renewed = {
        extra[name]: -1 - lost[name] for name in changed if lost[name] < 0 and extra[name] not in set(at.tolist())
    }
    change.names = {
        "added": [*(extra.keys() - changed)], "removed": [*(lost.keys() - changed)], "changed": [*changed],
        "of another class": [names[index] for index in at[there[is_moved]]],
    }  # fmt: skip
    return change


def _surplus(some: Mapping[str, int], others: Mapping[str, int], more: np.ndarray) -> dict[str, int]:
    """Names and contents of pictures that are there oftener than among the others."""
    left, found = more.tolist(), {}
    for name, which in some.items():
        if others.get(name) != which and (which < 0 or left[which] > 0):
            found[name] = which
            if which >= 0:
                left[which] -= 1
    return found
