"""Split into images that are trained on and images that are held out: a keyed permutation, decided by the seed
alone; `data.kept_pictures` keeps what was drawn."""

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastddpm.config import DataConfig
from fastddpm.config.checks import MIN_NORMAL
from fastddpm.data.groups import drawn_whole, groups_of, near_copies_of
from fastddpm.data.ingest import ImageSet, ingest
from fastddpm.draws import Stream, shuffled
from fastddpm.process import counted

if TYPE_CHECKING:
    from fastddpm.data.kept_pictures import KeptPictures

PARTED = (
    "{} of {} held-out images have near-copies among the images that are trained on: what is measured on them looks "
    "better than it is"
)
_NUM_NAMED = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Subset:
    """Some images of a store in random order; an image that is there more than once is in it as often."""

    source: ImageSet
    """all images"""
    indices: np.ndarray
    """(n,), int64: places in `source`"""
    labels: np.ndarray | None
    """(n,), int64, below `num_classes`"""

    @classmethod
    def of(cls, source: ImageSet, indices: np.ndarray, copies: np.ndarray) -> "Subset":
        """Images, each once, and then further copies, (K, 3) as in `ImageSet.duplicates`."""
        labels = None if source.labels is None else np.append(source.labels[indices], copies[:, 1])
        return cls(source, np.append(indices, copies[:, 0]), labels)

    def __len__(self) -> int:
        return len(self.indices)

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
        return torch.from_numpy(self.indices[places.numpy()])

    def labels_of(self, places: Tensor) -> Tensor | None:
        """(B,), int64; None without labels."""
        return None if self.labels is None else torch.from_numpy(self.labels[places.numpy()])

    def count_classes(self) -> dict[str, int] | None:
        """Number of images of each class; None without labels."""
        if self.labels is None or self.source.label_names is None:
            return None
        counts = np.bincount(self.labels, minlength=len(self.source.label_names))
        return dict(zip(self.source.label_names, counts.tolist(), strict=False))

    def image(self, place: int) -> np.ndarray:
        """The image at a place, 0 <= place < len(self): a copy, (C, H, W), uint8."""
        return np.array(self.source.images[self.indices[place]])


@dataclass(frozen=True, eq=False)
class Splits:
    """The images of a run; no image is in both parts, and no copy of one."""

    train: Subset
    """images, and after them further copies of some"""
    held_out: Subset
    """may be empty; without copies"""
    num_copies_left_out: int
    """images of the split to train on that are copies of held-out ones"""
    num_copies: int
    """further copies, last in `train`"""
    fingerprint: str
    """SHA-256, hexadecimal, of all pixels and labels and of which images are in which part"""
    kept: "KeptPictures | None" = None
    """list that a run kept; None: they were drawn"""
    num_together: int = 0
    """images that belong together with others, see `data.groups`"""
    num_parted: int = 0
    """held-out images with near-copies among those to train on"""


def load_splits(config: DataConfig, *, seed: int, show_progress: bool = True) -> Splits:
    """Draw the held-out and the training images.

    The images of a split are put into an order that depends on the seed and their number. Of the split that is held
    out from, the first `num_held_out`, or that share, are held out; of the one that is trained on, the next
    `num_images`, or all others, are for training: another `num_images` leaves the held-out ones as they are. Further
    copies of a training image count as images of their own; those of a held-out one are left out, and that is said.
    Images that belong together (`data.group`) are held out together or not at all, and of each class at least one
    image stays in training: what the draw may not hold out is passed over.

    Raises: ValueError: fewer images than asked for, or none left to train on; and what `ingest` raises.
    """
    return draw_splits(ingest(config, show_progress=show_progress), config, seed=seed, show_progress=show_progress)


def draw_splits(images: ImageSet, config: DataConfig, *, seed: int, show_progress: bool = True) -> Splits:
    """The same of images that are read in.  Raises: ValueError: see `load_splits`."""
    train, held_out = next(iter(images.splits)), list(images.splits)[-1]
    wanted_held_out = num_held_out_of(config.num_held_out, len(images.splits[held_out]))
    first = wanted_held_out if train == held_out else 0
    if wanted_held_out > len(images.splits[held_out]) or len(images.splits[train]) <= first:
        _raise_too_few(images, config, train, wanted_held_out)
    order, groups = _order(images, train, seed), groups_of(images, config.group) if wanted_held_out else None
    held = (order if train == held_out else _order(images, held_out, seed))[:wanted_held_out]
    if train == held_out and groups is not None:
        held = drawn_whole(order, groups, wanted_held_out, images.labels)
        _check_drawn(held, wanted_held_out, config, show_progress)
        order = order[~np.isin(order, held)]
    of_train = images.duplicates[images.duplicates[:, 2] == list(images.splits).index(train)]
    is_left_out = np.isin(of_train[:, 0], held)
    copies, num_left_out = of_train[~is_left_out], int(is_left_out.sum())
    if num_left_out and show_progress:
        _log.warning("left %s out of training: copies of held-out ones", counted(num_left_out, "image"))
    unique = len(order)
    wanted = unique + len(copies) if config.num_images is None else config.num_images
    if wanted > unique + len(copies):
        _raise_too_few(images, config, train, len(held))
    copies = copies[: max(0, wanted - unique)]
    parts: list[Any] = [(train, first, wanted, seed), (held_out, 0, wanted_held_out, seed)]
    if train == held_out and not np.array_equal(held, _order(images, train, seed)[:wanted_held_out]):
        parts.append(held.tolist())
    fingerprint = hashlib.sha256(json.dumps([images.fingerprint, parts]).encode()).hexdigest()
    kept = Subset.of(images, order[: min(wanted, unique)], copies)
    together, parted = (0, 0) if groups is None else _count_together(images, groups, config.group, kept.indices, held)
    if show_progress:
        _say_classes_without_images(kept)
        if together and train == held_out:
            why = "near-copies, or made from one picture" if config.group is None else f"by data.group {config.group}"
            _log.warning("%d images belong together with others: %s; each group stays on one side", together, why)
        if parted:
            _log.warning(PARTED.format(parted, len(held)))
    found = Subset.of(images, held, copies[:0])
    return Splits(kept, found, num_left_out, len(copies), fingerprint, None, together, parted)


def _check_drawn(held: np.ndarray, wanted: int, config: DataConfig, show_progress: bool) -> None:
    if not len(held):
        raise ValueError(
            f"no image of {config.source} can be held out: each is the last of its class, or in a group of more than "
            f"{wanted}; raise --data.num_held_out, or --data.group none to part groups"
        )
    if len(held) < wanted and show_progress:
        _log.warning(
            "held out %d images instead of %d: groups stay whole, and each class in training", len(held), wanted
        )


def _count_together(
    images: ImageSet, groups: np.ndarray, rule: str | None, trained: np.ndarray, held: np.ndarray
) -> tuple[int, int]:
    """Images in groups of several, and held-out ones with near-copies among those to train on."""
    near = groups if rule is None else near_copies_of(images)
    return int((np.bincount(groups)[groups] > 1).sum()), int(np.isin(near[held], near[trained]).sum())


def _order(images: ImageSet, split: str, seed: int) -> np.ndarray:
    """Images of a split in its random order, int64."""
    bounds = images.splits[split]
    places = shuffled(torch.arange(len(bounds)), len(bounds), seed=seed, epoch=0, stream=Stream.SPLIT)
    return bounds.start + places.numpy()


def num_held_out_of(wanted: float, num_images: int) -> int:
    """A number as it is; a share as the number that it is of a split, or that `detect` wants, within half of them."""
    if isinstance(wanted, int) or wanted == 0:
        return int(wanted)
    return max(round(wanted * num_images), min(MIN_NORMAL, num_images // 2))


def _say_classes_without_images(train: Subset) -> None:
    """Say which classes of the source have no training image, unless they are kinds of defects."""
    facts, counts = train.source.facts, train.count_classes() or {}
    without = [name for name in facts["label_names"] or () if not counts.get(name)]
    if without and not facts["has_defects"]:
        some = ", ".join(without[:_NUM_NAMED]) + (", ..." if len(without) > _NUM_NAMED else "")
        why = ", left out" if set(without).isdisjoint(counts) else " among data.num_images"
        _log.warning("%s without a training image%s: %s", counted(len(without), "class"), why, some)


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
