"""A small network whose features are learned without labels, for images of which nothing else is known.

It is trained to tell each image from all others under shifts and zooms (Chen et al. 2020, SimCLR), and to see how far
an image is turned (Gidaris et al. 2018). It sees no blur, noise or mixed image while it learns, so that how it orders
such images is a test of it. Its numbers compare with each other only: it is no Inception network.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastddpm.measures.judge import Judge, seeded
from fastddpm.progress import progress_bar

NUM_FEATURES = 64  # few, for some hundred images: a covariance of 64 x 64 has 2,080 numbers
NUM_STEPS, TEMPERATURE = 800, 0.2
MIN_SIDE, MIN_IMAGES = 16, 8


class UnlabelledFeatures(Judge):
    """(B, C, H, W) uint8 -> (B, 64) float32, for sides of at least 16 pixels.

    Args:
        image_shape: (C, H, W).
        facts: what it was trained on, plain JSON values.
    Raises: ValueError: a smaller side.
    """

    kind, learning, num_features = "unlabelled", "trained without labels", NUM_FEATURES
    title = "a small network"

    def __init__(self, image_shape: tuple[int, int, int], facts: dict[str, Any] | None = None):
        channels, height, width = image_shape
        if min(height, width) < MIN_SIDE:
            raise ValueError(
                f"got images of {height}x{width} pixels; a judge without labels takes sides of at least {MIN_SIDE}: "
                f"make them larger (data.image_size), or use a classifier"
            )

        def stage(c_in: int, c_out: int, stride: int) -> list[nn.Module]:
            size = max(3, 2 * stride - 1)  # every pixel counts
            return [
                nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(),
            ]  # fmt: skip

        first = 2 ** max(0, int(math.log2(min(height, width) / 32)))  # the cost of a larger image is that of 32x32
        stages = [*stage(channels, 24, first), *stage(24, 48, 2), *stage(48, 96, 2), *stage(96, 96, 1)]
        pooled = [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96 * 16, NUM_FEATURES)]
        super().__init__(image_shape, nn.Sequential(*stages, *pooled), facts)

    def forward(self, images: Tensor) -> Tensor:
        """Features as `features` gives them, with gradients."""
        return self.embedded(images)


def train_unlabelled(
    images: Tensor,
    *,
    num_steps: int = NUM_STEPS,
    batch_size: int = 128,
    seed: int = 0,
    device: str | torch.device = "cpu",
    show_progress: bool = True,
) -> UnlabelledFeatures:
    """Train on images alone with AdamW and a one-cycle rate; the same on every call on a CPU, and the caller's random
    state is left alone.

    Args:
        images: (N, C, H, W), uint8, H and W at least 16; of other than squares, turns are of the middle square.
        batch_size: N if there are fewer.
    Returns: a network in eval mode.
    Raises: ValueError: fewer than 8 images, smaller ones, or no uint8.
    """
    if images.dim() != 4 or len(images) < MIN_IMAGES or images.dtype != torch.uint8:
        raise ValueError(
            f"got {tuple(images.shape)} of {images.dtype}; to learn without labels takes at least {MIN_IMAGES} images, "
            f"(N, C, H, W), uint8"
        )
    batch_size = min(batch_size, len(images))
    facts = {"num_images": len(images), "num_steps": num_steps, "batch_size": batch_size, "seed": seed}
    with seeded(seed, device):
        made = UnlabelledFeatures((images.shape[1], images.shape[2], images.shape[3]), facts).to(device).train()
        projection, turns = (nn.Linear(NUM_FEATURES, count).to(device) for count in (NUM_FEATURES, 4))
        optimizer = torch.optim.AdamW([*made.parameters(), *projection.parameters(), *turns.parameters()])
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps)
        for _ in progress_bar(range(num_steps), "judge", is_shown=show_progress):
            batch = images[torch.randperm(len(images))[:batch_size]].to(device)
            quarters = torch.randint(4, (batch_size,))
            first, second, turned = (
                made.body(x / 127.5 - 1) for x in (moved(batch), moved(batch), turn(batch, quarters))
            )
            loss = contrast(projection(first), projection(second))
            loss = loss + F.cross_entropy(turns(turned), quarters.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    return made.eval()


def moved(images: Tensor) -> Tensor:
    """Each image zoomed by 0.8 to 1.25 and shifted by up to an eighth of its sides, edges repeated.

    Args:
        images: (B, C, H, W), any dtype.
    Returns: the same shape, float32.
    """
    count = len(images)
    zoom = torch.exp((torch.rand(count, 1, 1) * 2 - 1) * math.log(1.25)) * torch.eye(2)  # (B, 2, 2)
    shift = (torch.rand(count, 2, 1) * 2 - 1) / 4  # in half sides
    grid = F.affine_grid(torch.cat([zoom, shift], dim=2), list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid.to(images.device), padding_mode="border", align_corners=False)


def turn(images: Tensor, quarters: Tensor) -> Tensor:
    """The middle square of each image, turned.

    Args:
        images: (B, C, H, W), any dtype.
        quarters: (B,), int64: how many quarters of a turn, counterclockwise.
    Returns: (B, C, S, S), S the smaller side.
    """
    height, width = images.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    squares = images[..., top : top + side, left : left + side]
    return torch.stack([image.rot90(count, (1, 2)) for image, count in zip(squares, quarters.tolist(), strict=True)])


def contrast(first: Tensor, second: Tensor) -> Tensor:
    """NT-Xent of two views of B images, (B, d) each: every view must find its twin.  (Chen et al. 2020, Eq. 1)"""
    count = len(first)
    views = F.normalize(torch.cat([first, second]), dim=1)
    similarity = (views @ views.T / TEMPERATURE).fill_diagonal_(float("-inf"))
    return F.cross_entropy(similarity, torch.arange(2 * count, device=views.device).roll(count))
