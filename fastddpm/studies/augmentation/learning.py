"""Learning of a small convolutional network, for the same number of steps whatever it learns from."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastddpm import draws
from fastddpm.draws import Stream
from fastddpm.measures.judge import seeded
from fastddpm.studies.augmentation.classic import distort
from fastddpm.studies.augmentation.settings import GainClassic, GainClassifier

BATCH = 1000
"""held-out images at once"""
POOLED = 4
"""places a side that the last convolution is pooled to, whatever the images' size"""


@dataclass(frozen=True, eq=False)
class Lesson:
    """Images with what they are to be taken for."""

    images: Tensor
    """(N, C, H, W), uint8"""
    targets: Tensor
    """(N, num_classes), float32: a share for each class"""


def lesson_of(images: np.ndarray, labels: np.ndarray, num_classes: int) -> Lesson:
    """Each image with its one label.

    Args:
        images: (N, C, H, W), uint8.
        labels: (N,), int64.
    """
    return Lesson(torch.from_numpy(images), F.one_hot(torch.from_numpy(labels), num_classes).float())


def build_classifier(channels: int, num_classes: int, width: int) -> nn.Module:
    """(B, C, H, W) in [-1, 1] -> (B, num_classes) logits. A forward pass of 28x28 pixels takes a fifteenth of the
    multiplications of `evaluation/classifier.py`: here hundreds are trained."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(POOLED), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * width * POOLED**2, num_classes),
    )  # fmt: skip


def learn(
    reals: Lesson,
    drawn: Lesson | None,
    classic: GainClassic | None,
    settings: GainClassifier,
    *,
    seed: int,
    device: torch.device,
) -> nn.Module:
    """Train a classifier; the same bits each time on one machine and number of threads.

    Every condition takes the same number of steps of the same number of images from the same initial weights. Where
    images were drawn, `settings.share_drawn` of each batch is of those, however many there are, and the rest is reals;
    classic augmentation, where it is asked for, is of both.

    Args:
        reals, drawn: what it learns from; each goes round in epochs of its own. `drawn` None: reals only.
        classic: how far images are distorted; None: not at all.
        seed: of the initial weights, the order, dropout and distortions.
    Returns: a network of `build_classifier`, in eval mode.
    """
    size, steps = settings.batch_size, settings.num_steps
    num_drawn = 0 if drawn is None else min(size - 1, max(1, round(size * settings.share_drawn)))
    order = _order(len(reals.images), steps, size - num_drawn, seed, Stream.SAMPLE_ORDER)
    order_drawn = None if drawn is None else _order(len(drawn.images), steps, num_drawn, seed, Stream.CHOICE)
    chance = torch.Generator().manual_seed(seed)
    with seeded(seed, device):
        network = build_classifier(reals.images.shape[1], reals.targets.shape[1], settings.width).to(device).train()
        optimizer = torch.optim.AdamW(network.parameters(), fused=True)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps + 1)
        for step in range(steps):
            images, targets = reals.images[order[step]], reals.targets[order[step]]
            if drawn is not None and order_drawn is not None:
                images = torch.cat([images, drawn.images[order_drawn[step]]])
                targets = torch.cat([targets, drawn.targets[order_drawn[step]]])
            pixels = images.float() / 127.5 - 1
            if classic is not None:
                pixels = distort(pixels, classic, chance)
            optimizer.zero_grad()
            F.cross_entropy(network(pixels.to(device)), targets.to(device)).backward()
            optimizer.step()
            rate.step()
    return network.eval()


def _order(count: int, steps: int, size: int, seed: int, stream: Stream) -> Tensor:
    """(steps, size), int64: which images each step sees; epoch after epoch, each in its own order."""
    positions = torch.arange(steps * size)
    ids = draws.shuffled(positions % count, count, seed=seed, epoch=positions // count, stream=stream)
    return ids.reshape(steps, size)


@torch.no_grad()
def found_classes(network: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """The class that each image is taken for.

    Args:
        images: (N, C, H, W), uint8.
    Returns: (N,), int64, on the CPU.
    """
    parts = [network((part.float() / 127.5 - 1).to(device)).argmax(1).cpu() for part in images.split(BATCH)]
    return torch.cat(parts)


def accuracy(network: nn.Module, images: Tensor, labels: Tensor, device: torch.device) -> float:
    """Share of images, (N, C, H, W) uint8, that are taken for what they are, (N,) int64."""
    return float((found_classes(network, images, device) == labels).double().mean())
