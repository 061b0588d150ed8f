"""Which images are trained on and which are held out: a keyed permutation, decided by the seed alone."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from fastddpm.config import DataConfig
from fastddpm.data.ingest import ImageSet, ingest
from fastddpm.draws import Stream, shuffled


@dataclass(frozen=True, eq=False)
class Subset:
    """Some images of a set, without a copy of them."""

    source: ImageSet
    """all images"""
    indices: np.ndarray
    """(n,), int64, into `source`, in random order"""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.source.images.shape
        return channels, height, width

    @property
    def num_classes(self) -> int | None:
        """How many labels the whole set has; None without labels."""
        return None if self.source.label_names is None else len(self.source.label_names)

    @property
    def labels(self) -> np.ndarray | None:
        """(n,), int64; None without labels."""
        return None if self.source.labels is None else self.source.labels[self.indices]

    def image(self, place: int) -> np.ndarray:
        """The image at a place, 0 <= place < n: a copy, (C, H, W), uint8."""
        return np.array(self.source.images[self.indices[place]])


@dataclass(frozen=True, eq=False)
class Splits:
    """The images of a run; no image is in both parts."""

    train: Subset
    held_out: Subset
    """may be empty"""

    @property
    def fingerprint(self) -> str:
        """SHA-256, hexadecimal, of all pixels and labels and of which images are in which part."""
        digest = hashlib.sha256(self.train.source.fingerprint.encode())
        for part in (self.train, self.held_out):
            digest.update(len(part).to_bytes(8, "little") + part.indices.astype("<i8").tobytes())
        return digest.hexdigest()


def load_splits(config: DataConfig, *, seed: int, show_progress: bool = True) -> Splits:
    """Draw the held-out and the training images.

    The images are put into an order that depends on the seed and their number. The first `num_held_out` are held out,
    the next `num_images`, or all others, are for training: another `num_images` leaves the held-out ones as they are.

    Args:
        config: see `ingest`.
        seed: 64 bit.
        show_progress: as in `ingest`.
    Raises: ValueError: fewer images than asked for, or none left to train on; and what `ingest` raises.
    """
    images = ingest(config, show_progress=show_progress)
    total, num_held_out = len(images.images), config.num_held_out
    num_train = total - num_held_out if config.num_images is None else config.num_images
    if num_train < 1 or num_held_out + num_train > total:
        wanted = "at least 1" if config.num_images is None else str(config.num_images)
        raise ValueError(
            f"{config.source} holds {total} images, wanted {num_held_out} held out and {wanted} for training; "
            f"lower --data.num_held_out or --data.num_images"
        )
    order = _shuffled(num_held_out + num_train, total, seed)
    return Splits(train=Subset(images, order[num_held_out:]), held_out=Subset(images, order[:num_held_out]))


def _shuffled(count: int, total: int, seed: int) -> np.ndarray:
    """The first `count` of range(total) in the order of a seed: (count,), int64."""
    return shuffled(torch.arange(count), total, seed=seed, epoch=0, stream=Stream.SPLIT).numpy()
