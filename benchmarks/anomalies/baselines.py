"""Simpler ways to find anomalies; each learns from normal images alone."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastddpm.data import to_unit_range
from fastddpm.measures.calibration import raw_scores
from fastddpm.measures.judge import Judge, seeded
from fastddpm.measures.neighbours import Bank, Projection

EXPLAINED = 0.9
"""share of the variance of normal validation images that the components of PCA must explain"""
LATENTS = 32
"""of the autoencoder"""
CHUNK = 200
FLOOR = 0.3
"""share of the mean variance, added at each place: where normal images never change, little is not yet much"""


@dataclass(frozen=True, eq=False)
class Scored:
    """What a detector says of N images; higher is more anomalous."""

    scores: Tensor
    """(N,), float32"""
    maps: Tensor | None
    """(N, H, W), float32; None: it has none"""


Rebuild = Callable[[Tensor], Tensor]
"""(N, C, H, W) in [-1, 1] -> the same images as a model of normal ones has them"""


def nearest_in_pixels(images: Tensor, train: Tensor) -> Scored:
    """Distance to the nearest training image; the map is the squared difference from it.

    Args:
        images, train: (N, C, H, W), (M, C, H, W), uint8.
    """
    rows = to_unit_range(train).flatten(1)
    places = torch.cat([torch.cdist(part, rows).argmin(1) for part in to_unit_range(images).flatten(1).split(CHUNK)])
    squares = (to_unit_range(images) - to_unit_range(train[places])).square()
    return Scored(squares.sum(dim=(1, 2, 3)).sqrt(), squares.mean(1))


def nearest_in_features(images: Tensor, train: Tensor, judge: Judge) -> Scored:
    """Distance to the nearest training image in the features of a network.

    Args: as of `nearest_in_pixels`.
    """
    return Scored(torch.cdist(judge.features(images), judge.features(train)).amin(1), None)


def nearest_patches(images: Tensor, known: Tensor, calibration: Tensor) -> Scored:
    """What our detector does with its features, with pixels: patches of a seventh and of two sevenths of a side or so,
    half overlapping.

    Args:
        images, known, calibration: (N, C, H, W), (M, C, H, W), (K, C, H, W), uint8.
    """
    seen, others, normal = (_patches(x) for x in (images, known, calibration))
    projections = [Projection.of(level) for level in normal]
    levels = [[project(x) for project, x in zip(projections, of, strict=True)] for of in (normal, others, seen)]
    together = [torch.cat(pair) for pair in zip(*levels[:2], strict=True)]
    fixed = torch.arange(len(calibration) + len(known)) >= len(calibration)
    size, sample = (images.shape[2], images.shape[3]), fixed.nonzero()[:64, 0]
    bank = Bank.fit(together, projections, size, sample, fixed, torch.arange(len(fixed)))
    maps = bank.maps(levels[2])
    return Scored(raw_scores(maps), maps)


def _standardised(residuals: Tensor, normal: Tensor) -> Tensor:
    """(N, H, W): squares of residuals, (N, C, H, W), less the mean of normal ones, over their variance, smoothed."""
    variance, mean = torch.var_mean(normal, dim=0)
    variance = variance + FLOOR * variance.mean() + torch.finfo(torch.float32).eps
    squares = ((residuals - mean).square_() / variance).mean(1)
    size = max(3, round(min(squares.shape[1:]) / 9) // 2 * 2 + 1)
    return F.avg_pool2d(squares[:, None], size, 1, size // 2, count_include_pad=False)[:, 0]


def _patches(images: Tensor) -> list[Tensor]:
    """Two levels, each (N, D, h, w)."""
    pixels, step = to_unit_range(images), max(2, images.shape[2] // 16)
    found = []
    for stride in (step, 2 * step):
        places = [(side - 2 * stride) // stride + 1 for side in pixels.shape[2:]]
        found.append(F.unfold(pixels, 2 * stride, stride=stride).unflatten(2, places))
    return found


def by_rebuilding(rebuild: Rebuild, images: Tensor, calibration: Tensor) -> tuple[Scored, Scored]:
    """Squared errors of rebuilt images: as they are, and standardised place by place as our detector does with its
    residuals.

    Args:
        images, calibration: (N, C, H, W), (M, C, H, W), uint8; the second are held-out normal ones.
    """
    residuals, normal = (_residuals(rebuild, x) for x in (images, calibration))
    squares = residuals.square()
    maps = _standardised(residuals, normal)
    return Scored(squares.mean(dim=(1, 2, 3)), squares.mean(1)), Scored(raw_scores(maps), maps)


@torch.no_grad()
def _residuals(rebuild: Rebuild, images: Tensor) -> Tensor:
    return torch.cat([rebuild(part) - part for part in to_unit_range(images).split(CHUNK)])


def pca(train: Tensor, calibration: Tensor) -> tuple[Rebuild, int]:
    """Projection on the first principal components of the training images: the fewest that explain `EXPLAINED` of the
    variance of normal validation images.

    Args: as of `by_rebuilding`.
    Returns: the projection, and the number of components.
    """
    rows, unseen = (to_unit_range(x).flatten(1) for x in (train, calibration))
    mean = rows.mean(0)
    axes = torch.linalg.svd(
        (rows - mean).double(), full_matrices=False
    ).Vh.T.float()  # (D, at most M), the largest first
    along = ((unseen - mean) @ axes).square().sum(0)
    share = along.cumsum(0) / (unseen - mean).square().sum()
    count = min(int((share < EXPLAINED).sum()) + 1, len(along))
    kept = axes[:, :count]

    def rebuild(images: Tensor) -> Tensor:
        flat = images.flatten(1) - mean
        return (flat @ kept @ kept.T + mean).reshape(images.shape)

    return rebuild, count


class Autoencoder(nn.Module):
    """Convolutions down to an eighth of the sides or so, `LATENTS` numbers, and back.

    Args:
        image_shape: (C, H, W), sides divisible by 4.
        width: channels of the first level; each next one has twice as many.
        levels: how often the sides are halved.
    """

    def __init__(self, image_shape: tuple[int, int, int], width: int, levels: int = 2):
        super().__init__()
        channels, height, width_px = image_shape
        widths = [channels, *(width * 2**level for level in range(levels))]
        small = (widths[-1], height >> levels, width_px >> levels)
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for c_in, c_out in itertools.pairwise(widths):
            down += [nn.Conv2d(c_in, c_out, 4, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU()]
            last = [] if c_in == channels else [nn.BatchNorm2d(c_in), nn.ReLU()]
            up = [nn.ConvTranspose2d(c_out, c_in, 4, 2, 1), *last, *up]
        flat = small[0] * small[1] * small[2]
        self.body = nn.Sequential(
            *down, nn.Flatten(), nn.Linear(flat, LATENTS), nn.Linear(LATENTS, flat), nn.Unflatten(1, small), nn.ReLU(),
            *up,
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> the same shape."""
        return self.body(images)


def autoencoder(train: Tensor, *, num_parameters: int, images_seen: int, seed: int) -> Autoencoder:
    """Train one with about as many parameters as another network, on as many images.

    Args:
        train: (M, C, H, W), uint8.
    Returns: it, in eval mode.
    """
    shape = (train.shape[1], train.shape[2], train.shape[3])
    levels = 2 if shape[1] < 64 else 3
    sizes = {width: count_of(Autoencoder(shape, width, levels)) for width in (4, 8, 16, 24, 32, 48, 64, 96)}
    width = min(sizes, key=lambda each: abs(sizes[each] - num_parameters))
    steps, batch_size = -(-images_seen // 32), min(32, len(train))
    with seeded(seed, "cpu"):
        made = Autoencoder(shape, width, levels).train()
        optimizer = torch.optim.AdamW(made.parameters(), lr=1e-3)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        for _ in range(steps):
            batch = to_unit_range(train[torch.randperm(len(train))[:batch_size]])
            loss = F.mse_loss(made(batch), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    return made.eval()


def count_of(network: nn.Module) -> int:
    """Its parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
