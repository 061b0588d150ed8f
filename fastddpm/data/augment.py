"""Augmentation of a batch on its device: shift, turn and zoom in one resampling, then contrast and brightness.

Training keys its amounts by position; the study of what augmentation gains a classifier moves its images here too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastddpm import draws
from fastddpm.config import AugmentConfig
from fastddpm.draws import Stream

NUM_AMOUNTS = 6
"""Numbers that say how an image was augmented: down, right, turn, zoom, contrast, brightness."""


def amounts_at(positions: Tensor, config: AugmentConfig, *, seed: int) -> Tensor:
    """Draw how much the images at some positions are augmented, in shares of the largest amounts.

    Args:
        positions: (B,), int64.
    Returns: (B, NUM_AMOUNTS), float64, uniform in [-1, 1); 0 for what is off, and for each image that stays as it is.
    """
    drawn = draws.uniforms(positions, NUM_AMOUNTS + 1, seed=seed, stream=Stream.CROP, draw=2)  # 0 and 1 are a crop's
    is_augmented = drawn[:, 0] < config.probability
    strengths = (config.shift, config.shift, config.turn, config.zoom, config.contrast, config.brightness)
    shares = [(2 * drawn[:, i] - 1) * (is_augmented & (most > 0)) for i, most in enumerate(strengths, start=1)]
    return torch.stack(shares, dim=1)


def augment(images: Tensor, amounts: Tensor, config: AugmentConfig) -> Tensor:
    """Augment each image by its own amounts; those of 0 change no byte.

    A factor of zoom or contrast is (1 + largest) ** amount, so that each is as likely as its inverse. Contrast turns
    around the image's own mean.

    Args:
        images: (B, C, H, W), uint8.
        amounts: (B, NUM_AMOUNTS), as `amounts_at` draws them.
    Returns: the same shape, uint8, rounded once.
    """
    down, right, turn, zoom, contrast, brightness = amounts.unbind(1)
    height, width = images.shape[2:]
    pixels = images.float()
    if config.shift or config.turn or config.zoom:
        shifts = torch.stack([down * (config.shift * height), right * (config.shift * width)], dim=1)
        pixels = warp(pixels, shifts, turn * config.turn, (1 + config.zoom) ** zoom)
    factors = (1 + config.contrast) ** contrast
    means = images.sum((1, 2, 3), dtype=torch.int64) / images[0].numel()  # an exact sum: the same in any batch
    offsets = (1 - factors) * means + 255 * config.brightness * brightness
    pixels = pixels * _each(factors) + _each(offsets)
    return pixels.clamp_(0, 255).round_().to(torch.uint8)


def warp(
    images: Tensor, shifts: Tensor, degrees: Tensor, zooms: Tensor | None = None, displacements: Tensor | None = None
) -> Tensor:
    """Move what an image shows, bilinear between pixels; its edge is a mirror, beyond which the image lies once more.

    Args:
        images: (B, C, H, W), float.
        shifts: (B, 2), pixels down and to the right.
        degrees: (B,), a turn around the middle, against the clock.
        zooms: (B,), factors above 0, around the middle; above 1: larger; None: 1.
        displacements: (B, 2, H, W), pixels, down and to the right of where each pixel takes its value from; None: 0.
    Returns: the same shape and dtype as `images`.
    """
    _, _, height, width = images.shape
    rows, columns = (torch.arange(side, device=images.device) - (side - 1) / 2 for side in (height, width))
    down, right = rows[:, None] - _each(shifts[:, 0], 3), columns - _each(shifts[:, 1], 3)  # (B, H, 1), (B, 1, W)
    angles, scales = torch.deg2rad(degrees), 1.0 if zooms is None else 1 / zooms
    cos, sin = _each(angles.cos() * scales, 3), _each(angles.sin() * scales, 3)
    # where the pixel that is now (down, right) of the middle was before
    from_down, from_right = down * cos + right * sin, right * cos - down * sin
    if displacements is not None:
        from_down, from_right = from_down + displacements[:, 0], from_right + displacements[:, 1]
    places = torch.stack([from_right * 2 / width, from_down * 2 / height], dim=-1)  # (B, H, W, 2), in [-1, 1]
    return F.grid_sample(images, places.to(images), padding_mode="reflection", align_corners=False)


def _each(values: Tensor, dimensions: int = 4) -> Tensor:
    """(B,), any dtype, as (B, 1, ...), float32: to be spread over an image's elements."""
    return values.float().reshape(-1, *[1] * (dimensions - 1))
