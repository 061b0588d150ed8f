"""Memory formats: contiguous, or channels_last for (B, C, H, W). Anything else is copied to contiguous first."""

import torch
from torch import Tensor

from fastddpm.kernels.triton_or_not import jit, tl


def is_channels_last(x: Tensor) -> bool:
    """True if the channels of a pixel lie side by side; false for one channel or one pixel, which lie both ways."""
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def memory_format_of(x: Tensor) -> torch.memory_format:
    """channels_last or contiguous."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def image_format(shape: torch.Size, channels_last: bool) -> torch.memory_format:
    """channels_last where it is asked for and says something: images of one channel or one pixel are contiguous."""
    tells = channels_last and shape[1] > 1 and shape[2] * shape[3] > 1
    return torch.channels_last if tells else torch.contiguous_format


def dense(x: Tensor) -> Tensor:
    """`x` itself where it is contiguous or channels_last, else a contiguous copy."""
    return x.contiguous(memory_format=memory_format_of(x))


def same_layout(*tensors: Tensor | None) -> bool:
    """True if the dense tensors among these hold their elements in one order, so that the order does not matter."""
    return len({is_channels_last(x) for x in tensors if x is not None}) == 1


def plane_of(x: Tensor) -> tuple[int, int]:
    """(pixels of a channel, channels): what an element's place under channels_last comes from."""
    return (x.shape[2] * x.shape[3], x.shape[1]) if x.dim() == 4 else (1, 1)


@jit
def place_of(element, num_pixels, num_channels, CHANNELS_LAST: tl.constexpr):
    """Place within its image of the element with this index in logical (C, H, W) order."""
    if CHANNELS_LAST:
        return (element % num_pixels) * num_channels + element // num_pixels
    return element


@jit
def as_float32(x):
    """Pixels to [-1, 1], as the reference does to one rounding; floating numbers to float32."""
    if x.dtype == tl.uint8:
        return tl.fma(x.to(tl.float32), 2.0, -255.0) * (1.0 / 255.0)  # the difference is exact
    return x.to(tl.float32)


def as_float32_reference(x: Tensor) -> Tensor:
    """uint8 pixels as x / 127.5 - 1; floating numbers as float32."""
    return x.float() / 127.5 - 1.0 if x.dtype == torch.uint8 else x.float()
