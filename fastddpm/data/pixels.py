"""Between stored pixels and the range a diffusion process works in."""

import torch
from torch import Tensor


def to_unit_range(images: Tensor) -> Tensor:
    """x / 127.5 - 1: 0 becomes -1, 255 becomes 1.

    Args:
        images: any shape, uint8.
    Returns: same shape and memory format, float32, in [-1, 1].
    Raises: ValueError: `images` are not uint8.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype}, wanted torch.uint8 pixels; use to_uint8 on values in [-1, 1]")
    return images.float().div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """The inverse of `to_unit_range`: clamp to [-1, 1], scale, round half to even, once.

    Args:
        images: any shape, floating point without NaN; values outside of [-1, 1] become 0 or 255.
    Returns: same shape and memory format, uint8.
    Raises: ValueError: `images` are not floating point.
    """
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}, wanted floating point in [-1, 1]; use to_unit_range on uint8")
    return images.float().clamp(-1.0, 1.0).add_(1.0).mul_(127.5).round_().to(torch.uint8)
