"""Which images are trained on, and which are held out."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastddpm import draws
from fastddpm.config import DataConfig
from fastddpm.data.ingest import ImageSet, ingest


@dataclass(frozen=True)
class Subset:
    """Some images of a set, named by their places in it; nothing is copied."""

    images: ImageSet
    places: np.ndarray  # (n,), int64

    def __len__(self) -> int:
        return len(self.places)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.images.images.shape
        return channels, height, width

    @property
    def num_classes(self) -> int | None:
        """None: the images have no labels."""
        return None if self.images.label_names is None else len(self.images.label_names)

    def image(self, index: int) -> np.ndarray:
        """(C, H, W), uint8."""
        return np.array(self.images.images[self.places[index]])


@dataclass(frozen=True)
class Splits:
    """Training and held-out images; no image is in both."""

    train: Subset
    held_out: Subset

    @property
    def fingerprint(self) -> str:
        """sha256 of the images and of which of them are trained on."""
        return hashlib.sha256(self.train.images.fingerprint.encode() + self.train.places.tobytes()).hexdigest()


def load_splits(config: DataConfig, *, seed: int, show_progress: bool = True) -> Splits:
    """Ingest, and split by a permutation keyed by the seed: the first are held out, the next are trained on.

    Raises: ValueError: fewer images than asked for; and see `ingest`.
    """
    images = ingest(config, show_progress=show_progress)
    total = len(images.images)
    available = total - config.num_held_out
    wanted = available if config.num_images is None else config.num_images
    if available < 1 or wanted > available:
        raise ValueError(
            f"{total} images in {config.source!r} are too few for data.num_held_out {config.num_held_out} and "
            f"data.num_images {config.num_images}; hold out or train on fewer"
        )
    order = draws.shuffled(torch.arange(total), total, seed=seed, epoch=0, stream=draws.Stream.SPLIT).numpy()
    held_out, train = order[: config.num_held_out], order[config.num_held_out : config.num_held_out + wanted]
    return Splits(train=Subset(images, train), held_out=Subset(images, held_out))


class DeviceImages:
    """Gathers batches: from a uint8 copy on the device when the subset is small, else from the mapped cache."""

    def __init__(self, subset: Subset, device: torch.device, *, max_bytes_on_device: int = 2 * 2**30):
        self._subset, self._device = subset, device
        labels = subset.images.labels
        self._labels = None if labels is None else torch.from_numpy(labels[subset.places]).to(device)
        num_bytes = len(subset) * int(np.prod(subset.image_shape))
        fits = num_bytes <= max_bytes_on_device
        self._resident = torch.from_numpy(subset.images.images[subset.places]).to(device) if fits else None

    def __len__(self) -> int:
        return len(self._subset)

    def sample_ids(self, positions: Tensor, *, seed: int) -> Tensor:
        """Which images stand at some places of the run's global sequence: (B,), int64, on the host."""
        return draws.sample_ids(positions, len(self._subset), seed=seed)

    def gather(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images and labels by their index in the subset.

        Args:
            ids: (B,), int64, on the host.
        Returns: (B, C, H, W), uint8, and (B,), int64, or None, on the device.
        """
        on_device = ids.to(self._device)
        labels = None if self._labels is None else self._labels[on_device]
        if self._resident is not None:
            return self._resident[on_device], labels
        rows = self._subset.images.images[self._subset.places[ids.numpy()]]
        return torch.from_numpy(rows).to(self._device), labels
