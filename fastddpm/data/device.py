"""Batches of uint8 images on the device they are used on."""

import torch
from torch import Tensor

from fastddpm import draws
from fastddpm.data.splits import Subset

RESIDENT_BYTES = 2 * 2**30
"""larger sets stay in the host's map; MNIST takes 47 MB, CelebA at 64x64 2.5 GB"""


class DeviceImages:
    """A subset, ready to be gathered from: on the device while it is small, else from the map batch by batch.

    Args:
        subset: at least one image.
        device: where batches are wanted.
        resident_bytes: the largest set, in bytes of uint8, that is copied to the device whole. The batches are the
            same either way.
    """

    def __init__(self, subset: Subset, device: torch.device, *, resident_bytes: int = RESIDENT_BYTES) -> None:
        self._images = subset.source.images
        self._indices = torch.from_numpy(subset.indices)
        self._device = torch.device(device)
        labels = subset.labels
        self._labels = None if labels is None else torch.from_numpy(labels).to(self._device)
        self._resident: Tensor | None = None
        if len(subset) * self._images[0].nbytes <= resident_bytes:
            self._resident = torch.from_numpy(self._images[subset.indices]).to(self._device)

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def is_resident(self) -> bool:
        """Whether the images live on the device."""
        return self._resident is not None

    def sample_ids(self, positions: Tensor, *, seed: int) -> Tensor:
        """Which image stands at each place of the run's global sequence; see `draws.sample_ids`."""
        return draws.sample_ids(positions, len(self), seed=seed)

    def gather(self, sample_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images and labels by their place in the subset.

        Args:
            sample_ids: (B,), int64, 0 <= id < len(self), on any device; on the host they cost no synchronization.
        Returns: (B, C, H, W), uint8, and (B,), int64, or None without labels; on the device.
        Raises: IndexError: on the CPU, an id out of range. (CUDA reports it later, as a failed assertion.)
        """
        ids = sample_ids.to(self._device, non_blocking=True)
        labels = None if self._labels is None else self._labels.index_select(0, ids)
        if self._resident is not None:
            return self._resident.index_select(0, ids), labels
        places = self._indices.index_select(0, sample_ids.cpu())
        batch = torch.from_numpy(self._images[places.numpy()])  # the one copy on the host
        if self._device.type == "cuda":
            batch = batch.pin_memory()
        return batch.to(self._device, non_blocking=True), labels
