"""A small classifier of labelled real images, whose last but one layer gives features where those of photographs mean
little, as for digits."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor, nn
from tqdm import tqdm

NUM_FEATURES = 128
_WIDTHS = (32, 64, 128, 256)
_BATCH = 512


class Classifier(nn.Module):
    """(B, C, H, W) uint8 -> (B, num_classes) logits; convolutions on levels down to some 7x7 pixels.

    Args:
        image_shape: (C, H, W).
        facts: what it was trained on, plain JSON values.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, facts: dict[str, Any] | None = None):
        super().__init__()
        channels, height, width = image_shape
        levels = min(len(_WIDTHS), max(1, round(math.log2(min(height, width) / 7))))
        stages: list[nn.Module] = []
        for c_in, c_out in zip((channels, *_WIDTHS), _WIDTHS[:levels], strict=False):
            stages += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU(), nn.Conv2d(c_out, c_out, 3, padding=1)]
            stages += [nn.ReLU(), nn.MaxPool2d(2)]
        flat = _WIDTHS[levels - 1] * (height >> levels) * (width >> levels)
        self.body = nn.Sequential(*stages, nn.Flatten(), nn.Linear(flat, NUM_FEATURES), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(NUM_FEATURES, num_classes))
        self.image_shape, self.num_classes, self.facts = image_shape, num_classes, dict(facts or {})

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.head(self._embedded(images))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> (B, 128) float32."""
        return torch.cat([self._embedded(part) for part in images.split(_BATCH)])

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> (B, num_classes) float32."""
        return torch.cat([self(part).softmax(1) for part in images.split(_BATCH)])

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Share of images with the label that it finds most likely."""
        return float((self.probabilities(images).argmax(1).cpu() == labels.cpu()).double().mean())

    def _embedded(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != self.image_shape or images.dtype != torch.uint8:
            raise ValueError(
                f"got {tuple(images.shape[1:])} images of {images.dtype}; the classifier takes {self.image_shape}, "
                f"uint8"
            )
        return self.body(images.to(next(self.parameters()).device).float() / 127.5 - 1)

    def to_bytes(self) -> bytes:
        """As a safetensors file; the same bytes for the same weights."""
        described = {"image_shape": self.image_shape, "num_classes": self.num_classes, "facts": self.facts}
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        return save(weights, {"classifier": json.dumps(described, sort_keys=True)})

    def sha256(self) -> str:
        """Of `to_bytes`, hexadecimal: which features a score was measured in."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def load_classifier(path: Path) -> Classifier:
    """From a file of `to_bytes`, in eval mode.

    Raises: ValueError: no such file, or another kind.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file; give the .safetensors file of a classifier")
    try:
        with safe_open(path, "pt") as file:
            described = json.loads((file.metadata() or {})["classifier"])
        made = Classifier(tuple(described["image_shape"]), described["num_classes"], described["facts"])
        made.load_state_dict(load(path.read_bytes()))
    except Exception as error:  # safetensors, json and torch raise their own
        raise ValueError(f"{path} holds no classifier of ours ({error}); train one with train_classifier") from error
    return made.eval()


def train_classifier(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    epochs: int = 5,
    batch_size: int = 128,
    seed: int = 0,
    device: str | torch.device = "cpu",
    show_progress: bool = True,
) -> Classifier:
    """Train on labelled images with AdamW and a one-cycle rate; the same on every call, and the caller's random state
    is left alone.

    Args:
        images: (N, C, H, W), uint8.
        labels: (N,), int64, below `num_classes`.
    Returns: a classifier in eval mode.
    Raises: ValueError: no image, or not one label an image.
    """
    if (
        not len(images)
        or labels.shape != (len(images),)
        or not 0 <= int(labels.min()) <= int(labels.max()) < num_classes
    ):
        raise ValueError(
            f"got {len(images)} images and labels of shape {tuple(labels.shape)}; wanted a label of 0 to "
            f"{num_classes - 1} for each of at least one image"
        )
    batch_size = min(batch_size, len(images))
    steps = len(images) // batch_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        facts = {"num_images": len(images), "epochs": epochs, "batch_size": batch_size, "seed": seed}
        shape = (images.shape[1], images.shape[2], images.shape[3])
        made = Classifier(shape, num_classes, facts).to(device).train()
        optimizer = torch.optim.AdamW(made.parameters())
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * steps)
        for _ in tqdm(range(epochs), "classifier", leave=False, disable=not show_progress):
            order = torch.randperm(len(images))[: steps * batch_size]
            for places in order.split(batch_size):
                optimizer.zero_grad()
                F.cross_entropy(made(images[places]), labels[places].to(device)).backward()
                optimizer.step()
                rate.step()
    return made.eval()
