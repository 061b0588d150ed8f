"""What a drawing verb is asked for, and the images that it means: which there are, and what decides their pixels."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fastddpm.config import SamplerName
from fastddpm.pipelines.portable import Callback
from fastddpm.process import micro_batch


@dataclass(frozen=True, kw_only=True)
class Request:
    """What all verbs are asked for; each field is an option of the command line, where it has its meaning."""

    model: str
    out: Path
    figure: Path | None = None
    seed: int = 0
    class_label: int | None = None
    guidance_scale: float = 1.0
    scheduler: SamplerName | None = None
    num_inference_steps: int | None = None
    micro_batch_size: int = 64
    precision: str = "auto"
    compile: bool = False
    num_processes: int | None = None
    num_threads: int | None = None

    def __post_init__(self) -> None:
        self.check_counts("micro_batch_size", "num_inference_steps", "num_processes", "num_threads")
        if self.figure is not None and self.figure.suffix.lower() != ".png":
            raise ValueError(f"--figure is {self.figure}; wanted a file that ends in .png")
        if self.figure is not None and self.out.suffix.lower() == ".png":
            raise ValueError(f"--out {self.out} is a picture of all already; leave --figure out")

    def check_counts(self, *names: str) -> None:
        """Raises: ValueError: one of these is below 1."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")

    def check_seeds(self, num_images: int) -> None:
        """Raises: ValueError: `num_images` seeds from `seed` on are not all of 63 bits."""
        if self.seed < 0 or self.seed + num_images > 2**63:
            raise ValueError(f"seed is {self.seed}; seeds must be integers from 0 to 2^63 - 1")


@dataclass(frozen=True, kw_only=True)
class Series(ABC):
    """Images in order, drawn in micro-batches; the one at place i has the seed `seed + i`."""

    num_images: int
    micro_batch_size: int
    seed: int
    image_shape: tuple[int, int, int]
    facts: dict[str, Any]
    """what metadata.jsonl says of every image, besides its own row"""

    @property
    def num_micro_batches(self) -> int:
        """Of all processes."""
        return -(-self.num_images // self.micro_batch_size)

    def places(self, index: int) -> range:
        """Of a micro-batch's images."""
        return micro_batch(index, self.num_images, self.micro_batch_size)

    def seed_of(self, place: int) -> int:
        """Of the image at a place."""
        return self.seed + place

    @abstractmethod
    def row(self, place: int) -> dict[str, Any]:
        """What metadata.jsonl says of the image at a place; `file_name`, `seed` and `label` among it."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What decides the pixels, beside the model and how it computes; plain JSON values."""

    @abstractmethod
    def draw(self, pipeline: Any, places: Sequence[int], after_step: Callback) -> Tensor:
        """The images at some places: (B, C, H, W), float, in [0, 1]."""

    @property
    def num_tiles(self) -> int:
        """Of `figure`."""
        return self.num_images

    @abstractmethod
    def figure(self, images: np.ndarray) -> tuple[np.ndarray, int | None]:
        """All images, (N, C, H, W) uint8, as the tiles of one picture, and its columns (None: as square as it gets)."""


def digest(array: np.ndarray) -> str:
    """Of an array's elements."""
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()
