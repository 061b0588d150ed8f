"""The images that a drawing verb means: which there are, and what decides their pixels."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fastddpm import report
from fastddpm.pipelines.portable import Callback
from fastddpm.process import micro_batch


@dataclass(frozen=True, kw_only=True)
class Series(ABC):
    """Images in order, drawn in micro-batches; the one at place i has the seed `seed + i`."""

    num_images: int
    micro_batch_size: int
    seed: int
    image_shape: tuple[int, int, int]
    facts: dict[str, Any]
    """entries of metadata.jsonl for every image, besides its own row"""
    label_names: tuple[str, ...] | None = None
    """names of the model's classes, if it has any"""

    @property
    def num_micro_batches(self) -> int:
        """Number of micro-batches of all processes."""
        return -(-self.num_images // self.micro_batch_size)

    def places(self, index: int) -> range:
        """Places of a micro-batch's images."""
        return micro_batch(index, self.num_images, self.micro_batch_size)

    def seed_of(self, place: int) -> int:
        """Seed of the image at a place."""
        return self.seed + place

    def label_in_row(self, label: int | None) -> dict[str, Any]:
        """A class as a row has it: its number, and its name if it has one."""
        has_name = self.label_names is not None and label is not None and label < len(self.label_names)
        return {"label": label, **({"label_name": (self.label_names or ())[label or 0]} if has_name else {})}

    @abstractmethod
    def row(self, place: int) -> dict[str, Any]:
        """Row of metadata.jsonl for the image at a place; `file_name`, `seed` and `label` among it."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Settings that decide the pixels, beside the model and how it computes; plain JSON values."""

    @abstractmethod
    def draw(self, pipeline: Any, places: Sequence[int], after_step: Callback) -> Tensor:
        """The images at some places: (B, C, H, W), float, in [0, 1]."""

    @property
    def num_tiles(self) -> int:
        """Number of images in `save_figure`."""
        return self.num_images

    def save_figure(self, images: np.ndarray, path: Path) -> None:
        """Draw all images, (N, C, H, W) uint8, as one picture."""
        report.save_grid(images, path)


def digest(array: np.ndarray) -> str:
    """Checksum of an array's elements."""
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()
