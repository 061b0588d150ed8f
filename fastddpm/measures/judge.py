"""Common base of the small networks that make features of real images of one kind: see `classifier` (of labelled
images) and `unlabelled_judge`."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

BATCH = 512
"""images at once, so that any number fits"""


class Judge(nn.Module):
    """(B, C, H, W) uint8 of one shape -> (B, num_features) float32; kept in one safetensors file.

    Args:
        image_shape: (C, H, W).
        body: pixels in [-1, 1], float32, to features.
        facts: what it was trained on, plain JSON values.
    """

    kind: ClassVar[str]
    """the key of its metadata in a file"""
    learning: ClassVar[str] = "trained"
    """word for the way of learning, for `description`"""
    num_features: ClassVar[int]

    def __init__(self, image_shape: tuple[int, int, int], body: nn.Module, facts: dict[str, Any] | None):
        super().__init__()
        self.image_shape, self.body, self.facts = image_shape, body, dict(facts or {})

    @property
    def description(self) -> str:
        """Name of these features, to stand beside every score."""
        count = self.facts.get("num_images")
        trained = "not trained" if count is None else f"{self.learning} on {count:,} images"
        return f"{self.num_features} features of {self.title} {trained}"

    @property
    def title(self) -> str:
        """Kind of network, in words."""
        raise NotImplementedError

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> (B, num_features) float32, on the network's device.

        Raises: ValueError: images of another shape or dtype.
        """
        return torch.cat([self.embedded(part) for part in images.split(BATCH)])

    def embedded(self, images: Tensor) -> Tensor:
        """The same in one batch, with gradients."""
        return self.body(self._pixels(images))

    def _pixels(self, images: Tensor) -> Tensor:
        """Pixels in [-1, 1], float32, on the network's device."""
        if tuple(images.shape[1:]) != self.image_shape or images.dtype != torch.uint8:
            raise ValueError(
                f"got {tuple(images.shape[1:])} images of {images.dtype}; the judge takes {self.image_shape}, uint8: "
                "make one of images as these, such as fastddpm judge RUN:held_out"
            )
        return images.to(next(self.parameters()).device).float() / 127.5 - 1

    def arguments(self) -> dict[str, Any]:
        """Arguments that make the class again, plain JSON values."""
        return {"image_shape": self.image_shape, "facts": self.facts}

    def to_bytes(self) -> bytes:
        """Bytes of a safetensors file; the same for the same weights."""
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        return save(weights, {self.kind: json.dumps(self.arguments(), sort_keys=True)})

    def sha256(self) -> str:
        """Checksum of `to_bytes`, hexadecimal: it names the features that a score was measured in."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


@contextmanager
def seeded(seed: int, device: str | torch.device) -> Iterator[None]:
    """Random numbers of torch from a seed, on the CPU and on `device`; the caller's states are put back."""
    on = torch.device(device)
    with torch.random.fork_rng([on] if on.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch all GPUs
        if on.type == "cuda":
            with torch.cuda.device(on):
                torch.cuda.manual_seed(seed)
        yield
