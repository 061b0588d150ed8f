"""The ceiling: a large matrix product in each precision. A unit is a GFLOP."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.peers.loops import device, synchronize
from benchmarks.worker import Measured


@contextmanager
def gemm(*, side: int, dtype: str, repeats: int, num_threads: int = 0) -> Iterator[Measured]:
    """`repeats` products of two square matrices a round."""
    torch.set_num_threads(num_threads or torch.get_num_threads())
    a, b = (torch.randn(side, side, device=device()).to(getattr(torch, dtype)) for _ in range(2))

    def run() -> float:
        for _ in range(repeats):
            a @ b
        synchronize()
        return repeats * 2 * side**3 / 1e9

    yield Measured(run, {})
