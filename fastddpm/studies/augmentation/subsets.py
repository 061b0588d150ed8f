"""Choice of labelled images: one for each seed, as many of each class, the smaller sets inside the larger ones."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fastddpm import draws
from fastddpm.data import Splits, Subset
from fastddpm.draws import Stream
from fastddpm.verbs.sample.formats import save_source


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images with their labels."""

    images: np.ndarray
    """(N, C, H, W), uint8"""
    labels: np.ndarray
    """(N,), int64"""


def labelled_of(subset: Subset) -> Labelled:
    """All images of a part, in its own order.

    Raises: ValueError: they have no labels, or all the same.
    """
    places = torch.arange(len(subset))
    labels = subset.labels_of(places)
    if labels is None:
        raise ValueError(
            "the images have no labels, and accuracy is of labels; give class folders, a table or list with a column "
            "of classes (say which with --data.label_column), IDX files with labels beside them, or NPZ with labels"
        )
    if len(labels.unique()) < 2:
        raise ValueError(f"all {len(labels)} images have one label; accuracy wants at least two classes")
    return Labelled(subset.source.images[subset.indices_of(places).numpy()], labels.numpy())


def check_sizes(pool: Labelled, held_out: Labelled, sizes: tuple[int, ...]) -> None:
    """Raises: ValueError: fewer labelled images than classes, a class with too few of them, or a class that only the
    held-out images have."""
    classes, counts = np.unique(pool.labels, return_counts=True)
    if min(sizes) < len(classes):
        raise ValueError(
            f"num_labelled goes down to {min(sizes)} and there are {len(classes)} classes; each needs an image: raise "
            f"it to at least {len(classes)}"
        )
    strange = sorted(set(held_out.labels.tolist()) - set(classes.tolist()))
    if strange:
        raise ValueError(
            f"the held-out images have the labels {strange}, which no image to learn from has; raise num_unlabelled, "
            f"or leave those images out"
        )
    wanted = -(-max(sizes) // len(classes))
    if counts.min() < wanted:
        label = int(classes[counts.argmin()])
        raise ValueError(
            f"num_labelled goes up to {max(sizes)}, up to {wanted} of each of {len(classes)} classes, but label "
            f"{label} has {counts.min()} images that are not held out; lower num_labelled or num_held_out, or raise "
            f"num_unlabelled"
        )


def choose_labelled(labels: np.ndarray, size: int, *, seed: int, repeat: int) -> np.ndarray:
    """Choose as many images of each class as of the others, to within one.

    Args:
        labels: (N,), int64.
        size: how many images.
        seed: of all choices.
        repeat: which choice; those of a larger size hold those of a smaller one.
    Returns: (size,), int64: their places, sorted.
    """
    classes = np.unique(labels)
    chosen = []
    for place, label in enumerate(_shuffled(classes, seed, repeat)):
        members = _shuffled(np.flatnonzero(labels == label), seed, repeat)
        count = size // len(classes) + (place < size % len(classes))
        chosen.append(members[:count])
    return np.sort(np.concatenate(chosen))


def _shuffled(values: np.ndarray, seed: int, repeat: int) -> np.ndarray:
    places = torch.arange(len(values))
    return values[draws.shuffled(places, len(values), seed=seed, epoch=repeat, stream=Stream.CHOICE).numpy()]


def save_labelled(path: Path, chosen: Labelled) -> None:
    """Save the images as a `data.source`, in one move; a file that is there stays."""
    if not path.exists():
        save_source(path, chosen.images, labels=chosen.labels)


@dataclass(frozen=True)
class Set:
    """One labelled set: how many images, and which choice of them."""

    size: int
    repeat: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.size:04d}-{self.repeat}"


def sets_of(sizes: tuple[int, ...], num_seeds: int) -> list[Set]:
    """All of a measurement."""
    return [Set(size, repeat) for size in sizes for repeat in range(num_seeds)]


def parts_of(splits: Splits, sizes: tuple[int, ...]) -> tuple[Labelled, Labelled]:
    """The images to learn from and the held-out ones.

    Raises: ValueError: what `labelled_of` and `check_sizes` raise.
    """
    pool, held_out = labelled_of(splits.train), labelled_of(splits.held_out)
    check_sizes(pool, held_out, sizes)
    return pool, held_out
