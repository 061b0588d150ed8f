"""A stand-in for torchvision.transforms where torchvision cannot be installed, on Pillow images of 8 bits.

Only what diffusers' train_unconditional.py calls. Random transforms draw from torch's global generator, as
torchvision's do. What the script does not use by default (`PILToTensor`, `ConvertImageDtype`, for
`--preserve_input_precision`) can be named and refuses to run.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class InterpolationMode(Enum):
    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image


class Lambda:
    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        self.lambd = lambd

    def __call__(self, image: Any) -> Any:
        return self.lambd(image)


class Resize:
    """The shorter side becomes `size`, the longer one int(size * longer / shorter)."""

    def __init__(self, size: int, interpolation: InterpolationMode = InterpolationMode.BILINEAR) -> None:
        self.size = size
        self.filter = Image.Resampling[interpolation.name]

    def __call__(self, image: Image.Image) -> Image.Image:
        shorter = min(image.size)
        width, height = (self.size if side == shorter else int(self.size * side / shorter) for side in image.size)
        return image if (width, height) == image.size else image.resize((width, height), self.filter)


class CenterCrop:
    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        _check_at_least(image, self.size)
        left, top = (round((side - self.size) / 2) for side in image.size)
        return _cropped(image, left, top, self.size)


class RandomCrop:
    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        if image.size == (self.size, self.size):
            return image  # torchvision draws nothing here either
        _check_at_least(image, self.size)
        top, left = (int(torch.randint(0, side - self.size + 1, (1,))) for side in image.size[::-1])
        return _cropped(image, left, top, self.size)


class RandomHorizontalFlip:
    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < self.p else image


class ToTensor:
    """(H, W) or (H, W, C) of 0 to 255 -> (C, H, W) float32 of 0 to 1."""

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = np.array(image, dtype=np.uint8)
        channels_last = pixels[:, :, None] if pixels.ndim == 2 else pixels
        return torch.from_numpy(channels_last).permute(2, 0, 1).contiguous().float().div(255)


class Normalize:
    """(x - mean) / std, a channel each."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def __call__(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


class PILToTensor:
    def __call__(self, image: Image.Image) -> Tensor:
        raise NotImplementedError("--preserve_input_precision needs torchvision itself; install it, or leave it out")


class ConvertImageDtype:
    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, image: Tensor) -> Tensor:
        raise NotImplementedError("--preserve_input_precision needs torchvision itself; install it, or leave it out")


def _cropped(image: Image.Image, left: int, top: int, size: int) -> Image.Image:
    return image.crop((left, top, left + size, top + size))


def _check_at_least(image: Image.Image, size: int) -> None:
    if min(image.size) < size:
        raise ValueError(f"the picture has {image.size[0]}x{image.size[1]} pixels, wanted at least {size}x{size}")
