"""Kernel Inception Distance: how far samples are from real images, in the features of a network.
(Binkowski et al. 2018, Sec. 4)"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastddpm.measures.features import Features

NUM_SUBSETS = 100
BATCH = 64


@dataclass(frozen=True)
class KernelDistance:
    """KID and on what it was measured; near 0 for images of the same distribution, and sometimes below it."""

    mean: float
    """over the subsets; unbiased"""
    std: float
    """between the subsets, which share images: less than how much another draw of samples would differ"""
    num_reals: int
    num_samples: int
    subset_size: int


class KernelDistanceToReals:
    """Measures samples against real images, whose features are computed once.

    Args:
        features: on the device where it is to run.
        reals: batches of (B, C, H, W), uint8, at least two images in all.
    """

    def __init__(self, features: Features, reals: Iterable[Tensor]):
        from torchmetrics.image.kid import KernelInceptionDistance

        self._device = next((tensor.device for tensor in features.parameters()), torch.device("cpu"))
        with warnings.catch_warnings():  # that features are kept in memory
            warnings.simplefilter("ignore", UserWarning)
            self._metric = KernelInceptionDistance(
                feature=features, subsets=NUM_SUBSETS, reset_real_features=False, sync_on_compute=False
            ).to(self._device)
        self.num_reals = 0
        for batch in reals:
            self._metric.update(batch.to(self._device), real=True)
            self.num_reals += len(batch)

    def measure(self, samples: Tensor) -> KernelDistance:
        """The distance of samples, (N, C, H, W) uint8, N >= 2; the same each time for the same samples.

        A subset is half of the samples or of the reals, whichever are fewer, and at most 1,000.
        """
        subset_size = min(len(samples) // 2, self.num_reals // 2, 1000)
        assert subset_size > 0, (len(samples), self.num_reals)
        self._metric.reset()  # of the samples before these; the reals stay
        for batch in samples.split(BATCH):
            self._metric.update(batch.to(self._device), real=False)
        self._metric.subset_size = subset_size
        with torch.random.fork_rng(devices=[]):  # torchmetrics chooses the subsets by the global generator
            torch.manual_seed(0)
            mean, std = self._metric.compute()
        return KernelDistance(float(mean), float(std), self.num_reals, len(samples), subset_size)
