"""Classic augmentation of images: shift, rotation, elastic distortion, in one resampling."""

import math

import torch
from torch import Tensor

from fastddpm.data.augment import warp
from fastddpm.studies.augmentation.settings import GainClassic


def distort(images: Tensor, classic: GainClassic, generator: torch.Generator) -> Tensor:
    """Each image shifted, turned and distorted by its own random amounts.

    Args:
        images: (B, C, H, W), float.
        classic: how far at most; all 0: the images themselves.
        generator: of the random amounts, on the CPU.
    Returns: the same shape and dtype.
    """
    count, _, height, width = images.shape
    shifts = (2 * torch.rand(count, 2, generator=generator) - 1) * classic.shift
    degrees = (2 * torch.rand(count, generator=generator) - 1) * classic.rotation
    noise = torch.randn(count, 2, height, width, generator=generator)
    displacements = smooth(noise, classic.smoothness) * (classic.elastic / math.sqrt(2))
    return warp(images, shifts, degrees, displacements=displacements)


def smooth(noise: Tensor, width: float) -> Tensor:
    """Standard normal noise, smoothed by a Gaussian that wraps around the edges, still of variance 1 at each place.

    Args:
        noise: (..., H, W), float.
        width: standard deviation of the Gaussian, in pixels, above 0.
    """
    rows, columns = (_circulant(side, width).to(noise) for side in noise.shape[-2:])
    return rows @ noise @ columns.T


def _circulant(side: int, width: float) -> Tensor:
    """(side, side), each row a Gaussian around its own place on a ring, of square sum 1."""
    apart = (torch.arange(side)[:, None] - torch.arange(side)[None]).abs()
    weights = torch.exp(-0.5 * (torch.minimum(apart, side - apart) / width) ** 2)
    return weights / weights.square().sum(1, keepdim=True).sqrt()
