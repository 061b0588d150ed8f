"""A small classifier of labelled real images, whose last but one layer gives features where those of photographs mean
little, as for digits."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastddpm.measures.judge import BATCH, Judge, seeded
from fastddpm.progress import progress_bar

NUM_FEATURES = 128
_WIDTHS = (32, 64, 128, 256)


class Classifier(Judge):
    """(B, C, H, W) uint8 -> (B, num_classes) logits; convolutions on levels down to some 7x7 pixels.

    Args:
        image_shape: (C, H, W).
        facts: what it was trained on, plain JSON values.
    """

    kind, num_features = "classifier", NUM_FEATURES

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, facts: dict[str, Any] | None = None):
        channels, height, width = image_shape
        levels = min(len(_WIDTHS), max(1, round(math.log2(min(height, width) / 7))))
        stages: list[nn.Module] = []
        for c_in, c_out in zip((channels, *_WIDTHS), _WIDTHS[:levels], strict=False):
            stages += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU(), nn.Conv2d(c_out, c_out, 3, padding=1)]
            stages += [nn.ReLU(), nn.MaxPool2d(2)]
        flat = _WIDTHS[levels - 1] * (height >> levels) * (width >> levels)
        body = nn.Sequential(*stages, nn.Flatten(), nn.Linear(flat, NUM_FEATURES), nn.ReLU())
        super().__init__(image_shape, body, facts)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(NUM_FEATURES, num_classes))
        self.num_classes = num_classes

    @property
    def title(self) -> str:
        """Title, see `Judge.title`."""
        return f"a classifier of {self.num_classes} classes"

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.head(self.embedded(images))

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> (B, num_classes) float32."""
        return torch.cat([self(part).softmax(1) for part in images.split(BATCH)])

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Share of images with the label that it finds most likely."""
        return float((self.probabilities(images).argmax(1).cpu() == labels.cpu()).double().mean())

    def arguments(self) -> dict[str, Any]:
        """Arguments, see `Judge.arguments`."""
        return {**super().arguments(), "num_classes": self.num_classes}


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
    with seeded(seed, device):
        facts = {"num_images": len(images), "epochs": epochs, "batch_size": batch_size, "seed": seed}
        shape = (images.shape[1], images.shape[2], images.shape[3])
        made = Classifier(shape, num_classes, facts).to(device).train()
        optimizer = torch.optim.AdamW(made.parameters())
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * steps)
        for _ in progress_bar(range(epochs), "classifier", is_shown=show_progress):
            order = torch.randperm(len(images))[: steps * batch_size]
            for places in order.split(batch_size):
                optimizer.zero_grad()
                F.cross_entropy(made(images[places]), labels[places].to(device)).backward()
                optimizer.step()
                rate.step()
    return made.eval()
