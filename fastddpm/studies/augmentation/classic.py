"""Classic augmentation of images: shift, rotation, elastic distortion, in one resampling."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

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
    return warp(images, shifts, degrees, displacements)


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


def warp(images: Tensor, shifts: Tensor, degrees: Tensor, displacements: Tensor) -> Tensor:
    """Move what an image shows, bilinear between pixels; beyond its edge lies what is at the edge.

    Args:
        images: (B, C, H, W), float.
        shifts: (B, 2), pixels down and to the right.
        degrees: (B,), a turn around the middle, against the clock.
        displacements: (B, 2, H, W), pixels, down and to the right of where each pixel takes its value from.
    Returns: the same shape and dtype as `images`.
    """
    _, _, height, width = images.shape
    down = torch.arange(height, dtype=torch.float32)[:, None] - (height - 1) / 2 - shifts[:, 0, None, None]
    right = torch.arange(width, dtype=torch.float32)[None] - (width - 1) / 2 - shifts[:, 1, None, None]
    angles = torch.deg2rad(degrees)[:, None, None]
    # where the pixel that is now (down, right) of the middle was before
    from_down = down * angles.cos() + right * angles.sin() + displacements[:, 0]
    from_right = right * angles.cos() - down * angles.sin() + displacements[:, 1]
    places = torch.stack([from_right * 2 / width, from_down * 2 / height], dim=-1)  # (B, H, W, 2), in [-1, 1]
    return F.grid_sample(images, places.to(images), padding_mode="border", align_corners=False)
