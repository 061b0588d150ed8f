"""The batches of a run, on the device they are used on; read ahead where they come from the disk."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from fastddpm import draws
from fastddpm.data.splits import Subset
from fastddpm.data.store import image_hash

READ_AHEAD = 8
"""steps that are read before they are wanted"""
_THREADS = 4

Batch = tuple[Tensor, Tensor, Tensor | None]
"""positions (B,), int64, on the host; images (B, C, H, W), uint8, and labels (B,), int64, or None, on the device"""


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
        """True if the images live on the device."""
        return self._resident is not None

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


class Batches:
    """The micro-batches of each step. What a step holds is a function of its number, so that reading ahead needs no
    state and nothing is lost or repeated when a run stops.

    Args:
        images: to train on.
        positions_of: the positions of a step's micro-batches.
        seed: of the sample order.
        last_step: nothing is read for this step or later ones.
    """

    def __init__(
        self,
        images: DeviceImages,
        positions_of: Callable[[int], Sequence[Tensor]],
        *,
        seed: int,
        last_step: int,
    ):
        self.images = images
        self.waited_seconds = 0.0
        """time in which training stood still for want of a batch, over all calls of `of_step`"""
        self._positions_of, self._seed, self._last_step = positions_of, seed, last_step
        self._pool = None if images.is_resident else ThreadPoolExecutor(_THREADS, thread_name_prefix="read-ahead")
        self._coming: dict[int, Future[list[Batch]]] = {}

    def of_step(self, step: int) -> list[Batch]:
        """The micro-batches of a step, in turn."""
        start = time.perf_counter()
        if self._pool is None:
            batches = self._read(step)
        else:
            for ahead in range(step, min(step + READ_AHEAD + 1, self._last_step)):
                if ahead not in self._coming:
                    self._coming[ahead] = self._pool.submit(self._read, ahead)
            batches = self._coming.pop(step).result()
        self.waited_seconds += time.perf_counter() - start
        return batches

    def close(self) -> None:
        """Stop reading ahead."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _read(self, step: int) -> list[Batch]:
        return [
            (positions, *self.images.gather(draws.sample_ids(positions, len(self.images), seed=self._seed)))
            for positions in self._positions_of(step)
        ]
