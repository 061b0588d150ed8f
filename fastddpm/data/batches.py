"""The batches of a run, read ahead where they come from the disk."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from fastddpm.data.device import DeviceImages

READ_AHEAD = 8
"""steps that are read before they are wanted"""
_THREADS = 4

Batch = tuple[Tensor, Tensor, Tensor | None]
"""positions (B,), int64, on the host; images (B, C, H, W), uint8, and labels (B,), int64, or None, on the device"""


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
            (positions, *self.images.gather(self.images.sample_ids(positions, seed=self._seed)))
            for positions in self._positions_of(step)
        ]
