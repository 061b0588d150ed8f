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

    @staticmethod
    def common(
        request: Any, pipeline: Any, precision: str, num_images: int | None = None, **made_by: Any
    ) -> dict[str, Any]:
        """The fields that follow from a request and its model; `made_by` comes first in the facts."""
        count = request.num_images if num_images is None else num_images
        return {
            "num_images": count, "micro_batch_size": min(request.micro_batch_size, count), "seed": request.seed,
            "image_shape": pipeline.image_shape, "facts": {**made_by, "precision": precision, "model": request.model},
        }  # fmt: skip

    def options(self, after_step: Callback) -> dict[str, Any]:
        """Arguments of a pipeline that all of its images have in common."""
        return {
            "guidance_scale": self.facts["guidance"], "micro_batch_size": self.micro_batch_size, "output_type": "pt",
            "callback_on_step_end": after_step, "callback_on_step_end_tensor_inputs": (),
        }  # fmt: skip

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
