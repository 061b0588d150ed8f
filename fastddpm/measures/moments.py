"""Normal images' residuals at each place, and the distance of another residual from them, in variances."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FOLDS = 5


def folds(count: int) -> Iterator[Tensor]:
    """Images of each part: (count,), bool."""
    part = torch.arange(count) % FOLDS
    return (part == number for number in range(FOLDS))


FLOOR = 0.3
"""share of the mean variance, added at each place: where normal images never change, little is not yet much"""


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance of normal images' residuals, place by place."""

    mean: Tensor
    """(M, C, H, W), float32: of M residuals of an image"""
    variance: Tensor
    """(M, C, H, W), float32"""

    @classmethod
    def of(cls, residuals: Tensor) -> "Moments":
        """Moments of normal images: (N, M, C, H, W)."""
        variance, mean = torch.var_mean(residuals, dim=0)
        floor = FLOOR * variance.mean(dim=(1, 2, 3), keepdim=True) + torch.finfo(torch.float32).eps
        return cls(mean, variance + floor)

    @classmethod
    def fit(cls, residuals: Tensor) -> tuple["Moments", Tensor]:
        """The moments, and the maps of the same images, (N, H, W): each by moments that have not seen it."""
        maps = torch.empty(len(residuals), *residuals.shape[-2:])
        for inside in folds(len(residuals)):
            maps[inside] = cls.of(residuals[~inside]).maps(residuals[inside])
        return cls.of(residuals), maps

    def maps(self, residuals: Tensor) -> Tensor:
        """(N, M, C, H, W) -> (N, H, W): squared distances from normal residuals, in variances, smoothed; of normal
        images about 1."""
        squares = ((residuals - self.mean).square_() / self.variance).mean(dim=(1, 2))
        size = smoothing_of(squares.shape[-2], squares.shape[-1])
        return F.avg_pool2d(squares[:, None], size, 1, size // 2, count_include_pad=False)[:, 0]


def smoothing_of(height: int, width: int) -> int:
    """Side of the square over which maps are averaged: about a ninth of the image's, odd, at least 3."""
    return max(3, round(min(height, width) / 9) // 2 * 2 + 1)
