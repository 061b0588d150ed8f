"""Split into images that are trained on and images that are held out: a keyed permutation, decided by the seed
alone."""

import hashlib
import json
import logging
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastddpm.config import DataConfig
from fastddpm.config.checks import MIN_NORMAL
from fastddpm.data.ingest import ImageSet, ingest
from fastddpm.draws import Stream, shuffled
from fastddpm.process import counted

NOTHING = np.zeros((0, 2), dtype=np.int64)
_NUM_NAMED = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Subset:
    """Some images of a split in random order, without a list of them: its cost does not grow with their number."""

    source: ImageSet
    """all images"""
    split: str
    """the name of the split they are drawn from"""
    first: int
    """number of images of the split's random order that come before"""
    count: int
    """number of images that follow, each of them once"""
    copies: np.ndarray
    """(K, 2), int64: image and label (-1: none) of further copies of these, which come after them"""
    seed: int
    exchanged: np.ndarray = field(default_factory=lambda: NOTHING)
    """(K, 2), int64: places in the split's random order whose images change places"""

    def __len__(self) -> int:
        return self.count + len(self.copies)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.source.images.shape
        return channels, height, width

    @property
    def num_classes(self) -> int | None:
        """Number of labels in the whole set; None without labels."""
        return None if self.source.label_names is None else len(self.source.label_names)

    def indices_of(self, places: Tensor) -> Tensor:
        """Places of the images in `source`.

        Args:
            places: (B,), int64, 0 <= place < len(self), on the CPU.
        Returns: (B,), int64.
        Raises: IndexError: a place out of range.
        """
        if len(places) and not 0 <= int(places.min()) <= int(places.max()) < len(self):
            raise IndexError(f"got a place from {int(places.min())} to {int(places.max())}, there are {len(self)}")
        bounds = self.source.splits[self.split]
        is_copy = places >= self.count
        inside = _exchanged(torch.where(is_copy, 0, places) + self.first, self.exchanged)
        indices = bounds.start + shuffled(inside, len(bounds), seed=self.seed, epoch=0, stream=Stream.SPLIT)
        if is_copy.any():
            indices[is_copy] = torch.from_numpy(self.copies[(places[is_copy] - self.count).numpy(), 0])
        return indices

    def labels_of(self, places: Tensor) -> Tensor | None:
        """(B,), int64; None without labels."""
        if self.source.labels is None:
            return None
        labels = torch.from_numpy(self.source.labels[self.indices_of(places).numpy()])
        is_copy = places >= self.count
        if is_copy.any():
            labels[is_copy] = torch.from_numpy(self.copies[(places[is_copy] - self.count).numpy(), 1])
        return labels

    def count_classes(self) -> dict[str, int] | None:
        """Number of images of each class; None without labels."""
        if self.source.labels is None or self.source.label_names is None:
            return None
        most, labels = len(self.source.label_names) + 1, self.source.labels
        bounds, others = self.source.splits[self.split], replace(self, first=0, count=self.first, copies=NOTHING)
        if self.first + self.count < len(bounds) or self.first > self.count:
            counts = np.bincount(np.asarray(self.labels_of(torch.arange(len(self)))), minlength=most)
        else:  # fewer places to compute
            counts = np.bincount(labels[bounds.start : bounds.stop], minlength=most)
            counts += np.bincount(self.copies[:, 1], minlength=most)
            counts -= np.bincount(labels[others.indices_of(torch.arange(len(others)))], minlength=most)
        return dict(zip(self.source.label_names, counts.tolist(), strict=False))

    def image(self, place: int) -> np.ndarray:
        """The image at a place, 0 <= place < len(self): a copy, (C, H, W), uint8."""
        return np.array(self.source.images[int(self.indices_of(torch.tensor([place])))])


@dataclass(frozen=True, eq=False)
class Splits:
    """The images of a run; no image is in both parts, and no copy of one."""

    train: Subset
    held_out: Subset
    """may be empty"""
    num_copies_left_out: int = 0
    """images of the split to train on that are copies of held-out ones"""

    @property
    def fingerprint(self) -> str:
        """SHA-256, hexadecimal, of all pixels and labels and of which images are in which part."""
        parts: list[Any] = [(part.split, part.first, len(part), part.seed) for part in (self.train, self.held_out)]
        parts += [self.train.exchanged.tolist()] if len(self.train.exchanged) else []
        return hashlib.sha256(json.dumps([self.train.source.fingerprint, parts]).encode()).hexdigest()


def load_splits(config: DataConfig, *, seed: int, show_progress: bool = True) -> Splits:
    """Draw the held-out and the training images.

    The images of a split are put into an order that depends on the seed and their number. Of the split that is held
    out from, the first `num_held_out`, or that share, are held out; of the one that is trained on, the next
    `num_images`, or all others, are for training: another `num_images` leaves the held-out ones as they are. Further
    copies of a training image count as images of their own; those of a held-out one are left out, and that is said. Of
    each class at least one image stays in training: where the draw holds out all of them, one changes places with an
    image of which there are others.

    Raises: ValueError: fewer images than asked for, or none left to train on; and what `ingest` raises.
    """
    images = ingest(config, show_progress=show_progress)
    train, held_out = next(iter(images.splits)), list(images.splits)[-1]
    num_held_out = _num_held_out(config.num_held_out, len(images.splits[held_out]))
    first = num_held_out if train == held_out else 0
    if num_held_out > len(images.splits[held_out]) or len(images.splits[train]) <= first:
        _raise_too_few(images, config, train, num_held_out)
    exchanged = _exchanges(images, train, num_held_out, seed) if train == held_out else NOTHING
    held = Subset(images, held_out, 0, num_held_out, NOTHING, seed, exchanged)
    copies, num_left_out = _copies(images, train, held)
    if num_left_out and show_progress:
        _log.warning("left %d images out of training: they are copies of held-out ones", num_left_out)
    unique = len(images.splits[train]) - first
    wanted = unique + len(copies) if config.num_images is None else config.num_images
    if wanted > unique + len(copies):
        _raise_too_few(images, config, train, num_held_out)
    kept = Subset(images, train, first, min(wanted, unique), copies[: max(0, wanted - unique)], seed, exchanged)
    if show_progress:
        _say_classes_without_images(kept)
    return Splits(train=kept, held_out=held, num_copies_left_out=num_left_out)


def _num_held_out(wanted: float, num_images: int) -> int:
    """A number as it is; a share as the number that it is of a split, or that `detect` wants, within half of them."""
    if isinstance(wanted, int) or wanted == 0:
        return int(wanted)
    return max(round(wanted * num_images), min(MIN_NORMAL, num_images // 2))


def _exchanges(images: ImageSet, split: str, num_held_out: int, seed: int) -> np.ndarray:
    """Places of held-out images, the last of their classes, and of others that are held out instead: (K, 2)."""
    bounds, held = images.splits[split], Subset(images, split, 0, num_held_out, NOTHING, seed)
    if images.labels is None or not num_held_out:
        return NOTHING
    all_, out = images.labels[bounds.start : bounds.stop], images.labels[held.indices_of(torch.arange(num_held_out))]
    most = int(all_.max()) + 1
    lost = np.flatnonzero((np.bincount(out, minlength=most) == (counts := np.bincount(all_))) & (counts > 0))
    if not len(lost):
        return NOTHING
    indices = replace(held, count=len(bounds)).indices_of(torch.arange(len(bounds))).numpy()  # listed in this case only
    after = indices[num_held_out:]
    is_free = ~np.isin(after, images.duplicates[:, 0])
    is_free[np.unique(images.labels[after], return_index=True)[1]] = False  # one of each class stays
    places = [int(np.argmax(out == label)) for label in lost]
    pairs = list(zip(sorted(places), num_held_out + np.flatnonzero(is_free), strict=False))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _exchanged(places: Tensor, pairs: np.ndarray) -> Tensor:
    """The place that each has changed with, or its own."""
    if not len(pairs):
        return places
    order = np.argsort(pairs.ravel())
    before, after = (torch.from_numpy(of.ravel()[order]) for of in (pairs, pairs[:, ::-1]))
    at = torch.searchsorted(before, places).clamp(max=len(before) - 1)
    return torch.where(before[at] == places, after[at], places)


def _say_classes_without_images(train: Subset) -> None:
    """Say which classes of the source have no training image, unless they are kinds of defects."""
    facts, counts = train.source.facts, train.count_classes() or {}
    without = [name for name in facts["label_names"] or () if not counts.get(name)]
    if without and not facts["has_defects"]:
        some = ", ".join(without[:_NUM_NAMED]) + (", ..." if len(without) > _NUM_NAMED else "")
        why = ", left out" if set(without).isdisjoint(counts) else " among data.num_images"
        _log.warning("%s without a training image%s: %s", counted(len(without), "class"), why, some)


def _copies(images: ImageSet, train: str, held_out: Subset) -> tuple[np.ndarray, int]:
    """Copies in the split to train on that are of no held-out image, (K, 2), and the number of the others."""
    rows = images.duplicates[images.duplicates[:, 2] == list(images.splits).index(train)]
    is_held_out = np.isin(rows[:, 0], held_out.indices_of(torch.arange(len(held_out))).numpy())
    return rows[~is_held_out, :2], int(is_held_out.sum())


def _raise_too_few(images: ImageSet, config: DataConfig, train: str, num_held_out: int) -> None:
    counts = [
        f"{len(found)} images" + (f" in split {name}" if len(images.splits) > 1 else "")
        for name, found in images.splits.items()
    ]
    shared = " (one that is in both counts for the first)" if len(images.splits) > 1 else ""
    wanted = "at least 1" if config.num_images is None else str(config.num_images)
    raise ValueError(
        f"{config.source} holds {' and '.join(counts)}, each counted once{shared}, "
        f"wanted {num_held_out} held out and {wanted} for training; lower --data.num_held_out or "
        f"--data.num_images"
    )
