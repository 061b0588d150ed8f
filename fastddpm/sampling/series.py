"""Which images are asked for, and what decides their pixels."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastddpm.config import SamplerName
from fastddpm.pipelines.deal import micro_batch


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `fastddpm sample` is asked for; each field is an option of the command line, where it has its meaning."""

    model: str
    out: Path
    num_images: int = 64
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
        for name in ("num_images", "micro_batch_size", "num_inference_steps", "num_processes", "num_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.seed < 0 or self.seed + self.num_images > 2**63:
            raise ValueError(f"seed is {self.seed}; seeds must be integers from 0 to 2^63 - 1")


@dataclass(frozen=True, kw_only=True)
class Series:
    """Images in order: the one at place i has the seed `seed + i`, and a class of its own if the model knows any."""

    num_images: int
    micro_batch_size: int
    seed: int
    num_classes: int | None
    class_label: int | None
    image_shape: tuple[int, int, int]
    facts: dict[str, Any]
    """what else metadata.jsonl says of every image"""

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

    def label_of(self, place: int) -> int | None:
        """The class asked for, or each in turn by seed, as in `FastDDPMPipeline`; None: the model knows none."""
        if self.class_label is not None or self.num_classes is None:
            return self.class_label
        return self.seed_of(place) % self.num_classes

    def row(self, place: int) -> dict[str, Any]:
        """What metadata.jsonl says of the image at a place."""
        seed = self.seed_of(place)
        return {"file_name": f"{seed:06d}.png", "seed": seed, "label": self.label_of(place), **self.facts}


def fingerprint(unet: Any, scheduler: Any) -> str:
    """Of everything that is loaded: the weights' bits, the network's and the scheduler's settings."""
    found = hashlib.blake2b(digest_size=16)
    for owner in (unet, scheduler):
        settings = {key: value for key, value in owner.config.items() if not key.startswith("_")}
        found.update(json.dumps([type(owner).__name__, settings], sort_keys=True, default=str).encode())
    for name, tensor in unet.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(_bytes_of(tensor))
    return found.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
