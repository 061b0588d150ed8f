"""Pixels as bytes, and as the numbers the model sees."""

import torch
from torch import Tensor


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]: x / 127.5 - 1."""
    return images.float() / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """Float in [-1, 1] to uint8: clipped, scaled, rounded half to even, once; the inverse of `to_unit_range`."""
    return ((images.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
