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


def crop(images: Tensor, tops: Tensor, lefts: Tensor, side: int) -> Tensor:
    """A square of each image, each at its own place.

    Args:
        images: (B, C, H, W), any dtype.
        tops, lefts: (B,), int64, the square's first row and column: 0 <= top <= H - side, 0 <= left <= W - side.
        side: of the squares, in pixels.
    Returns: (B, C, side, side), a copy, made in one gather without a synchronization.
    """
    span = torch.arange(side, device=images.device)
    rows, columns = tops[:, None] + span, lefts[:, None] + span  # (B, side)
    batch = torch.arange(len(images), device=images.device)
    channels = torch.arange(images.shape[1], device=images.device)
    return images[
        batch[:, None, None, None], channels[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]


def center_crop(images: Tensor, side: int | None) -> Tensor:
    """The square in the middle, of images of any leading dimensions.

    Args:
        images: (..., H, W), any dtype.
        side: in pixels, at most H and W; None: whole images.
    Returns: (..., side, side), a view; an odd margin is a pixel wider at the bottom or on the right.
    """
    if side is None:
        return images
    top, left = (images.shape[-2] - side) // 2, (images.shape[-1] - side) // 2
    return images[..., top : top + side, left : left + side]
