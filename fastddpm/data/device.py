"""Batches of uint8 images on the device they are used on."""

import torch
from torch import Tensor

from fastddpm import draws
from fastddpm.data.splits import Subset
from fastddpm.data.store import image_hash

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
        self.subset = subset
        self._device = torch.device(device)
        self._resident: Tensor | None = None
        self._labels: Tensor | None = None
        if len(subset) * subset.source.images[0].nbytes <= resident_bytes:
            places = torch.arange(len(subset))
            images, labels = subset.source.images[subset.indices_of(places).numpy()], subset.labels_of(places)
            self._resident = torch.from_numpy(images).to(self._device)
            self._labels = None if labels is None else labels.to(self._device)

    def __len__(self) -> int:
        return len(self.subset)

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
            ValueError: an image in the map is not what was stored.
        """
        if self._resident is None:
            return self._from_map(sample_ids.cpu())
        ids = sample_ids.to(self._device, non_blocking=True)
        labels = None if self._labels is None else self._labels.index_select(0, ids)
        return self._resident.index_select(0, ids), labels

    def _from_map(self, sample_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        source, indices = self.subset.source, self.subset.indices_of(sample_ids).numpy()
        images = source.images[indices]  # the one copy on the host
        for index, image, wanted in zip(indices, images, source.hashes[indices], strict=True):
            if image_hash(image) != wanted.tobytes():
                raise ValueError(
                    f"image {index} in {source.folder} is not what was stored; remove that folder, and the images are "
                    f"read in again"
                )
        labels = self.subset.labels_of(sample_ids)
        return self._moved(torch.from_numpy(images)), None if labels is None else self._moved(labels)

    def _moved(self, tensor: Tensor) -> Tensor:
        pinned = tensor.pin_memory() if self._device.type == "cuda" else tensor
        return pinned.to(self._device, non_blocking=True)
