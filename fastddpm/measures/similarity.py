"""Likeness of images: to what they were made from, to each other, to chance; and whether a seam can be seen."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage, stats
from torch import Tensor

QUANTILES = (0.025, 0.975)
MIN_SIDE = 11
"""smallest side of images for `ssim`: its window"""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval by bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"

    def row(self) -> list[float]:
        """Value, low, high: plain JSON values."""
        return [self.value, self.low, self.high]


def estimate(statistic: Callable[[np.ndarray], float], count: int, *, resamples: int, seed: int) -> Estimate:
    """A statistic of `count` independent things, and how much it would vary with others.

    Args:
        statistic: of places, (n,) int64; each of them may come more than once.
        resamples: of the bootstrap; 0: the interval is the value.
        seed: of the bootstrap.
    """
    value = statistic(np.arange(count))
    if not resamples:
        return Estimate(value, value, value)
    rng = np.random.default_rng(seed)
    drawn = np.array([statistic(rng.integers(0, count, count)) for _ in range(resamples)])
    low, high = np.quantile(drawn, QUANTILES)
    return Estimate(value, float(low), float(high))


@dataclass(frozen=True)
class Relation:
    """Distance of images from those that they belong with, beside their distance from the others."""

    own: float
    """mean distance of images that belong together"""
    random: float
    """mean distance of images that do not: the same images, paired otherwise"""
    ratio: Estimate
    """own / random: 0 for equal images, 1 for unrelated ones"""
    of_each: np.ndarray
    """(G,): the mean distance within each group"""

    def row(self) -> dict[str, object]:
        """Plain JSON values."""
        return {"own": self.own, "random": self.random, "ratio": self.ratio.row()}


def relation(distances: np.ndarray, *, resamples: int, seed: int) -> Relation:
    """Relation of groups of images, such as an input and its variations.

    Args:
        distances: (G, G): means over the pairs of images of one group and of another; on the diagonal, within it.
    """
    own, count = distances.diagonal().copy(), len(distances)

    def ratio(places: np.ndarray) -> float:
        """Groups are drawn, not pairs: a group that is far from all others is so in its row and in its column."""
        others = places[:, None] != places[None, :]
        random = distances[np.ix_(places, places)][others].mean() if others.any() else np.nan
        return float(own[places].mean() / max(random, 1e-12))

    random = distances[~np.eye(count, dtype=bool)].mean()
    found = estimate(ratio, count, resamples=resamples, seed=seed)
    return Relation(float(own.mean()), float(random), found, own)


def to_inputs(inputs: Tensor, results: Tensor, *, resamples: int, seed: int) -> Relation:
    """Relation of results to what they were made from.

    Args:
        inputs: features, (N, D), N >= 2.
        results: (N, K, D), K of each.
    """
    count, each, _ = results.shape
    distances = torch.cdist(inputs.double(), results.flatten(0, 1).double(), compute_mode=_EXACT)
    return relation(distances.unflatten(1, (count, each)).mean(2).numpy(), resamples=resamples, seed=seed)


def among_siblings(results: Tensor, *, resamples: int, seed: int) -> Relation:
    """Relation of results to the others that were made from the same input.

    Args:
        results: features, (N, K, D), K >= 2 of each of N >= 2 inputs.
    """
    count, each, _ = results.shape
    flat = results.flatten(0, 1).double()
    distances = torch.cdist(flat, flat, compute_mode=_EXACT)
    sums = distances.reshape(count, each, count, each).sum((1, 3))
    pairs = torch.full((count, count), float(each * each), dtype=torch.float64)
    pairs.fill_diagonal_(each * (each - 1))  # an image's distance to itself, 0, is none
    return relation((sums / pairs).numpy(), resamples=resamples, seed=seed)


_EXACT = "donot_use_mm_for_euclid_dist"


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of pairs of images: 1 for equal ones.  (Wang et al. 2004, Eq. 13)

    Args:
        a, b: (N, C, H, W), uint8, of at least 11x11 pixels.
    Returns: (N,), float64.
    """

    def local(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, 1.5, mode="mirror", radius=MIN_SIDE // 2, axes=(2, 3))

    x, y = a.double().numpy(), b.double().numpy()
    mean_x, mean_y = local(x), local(y)
    variances = local(x * x) - mean_x**2 + local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    c_1, c_2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = (2 * mean_x * mean_y + c_1) * (2 * covariance + c_2) / ((mean_x**2 + mean_y**2 + c_1) * (variances + c_2))
    return torch.from_numpy(found.mean((1, 2, 3)))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation of two sequences of one length: 1 if both grow together; 0 if one of them is constant."""
    return float(stats.spearmanr(x, y).statistic) if np.ptp(x) and np.ptp(y) else 0.0


def steps_across(images: Tensor, masks: Tensor) -> Tensor:
    """Difference of neighbouring pixels on the two sides of a mask's edge, in grey levels.

    Args:
        images: (N, C, H, W), uint8.
        masks: (N, 1, H, W), bool; each has an edge.
    Returns: (N,), float64: the mean over all pairs of neighbours (in a row or a column) of which the mask holds one.
    """
    return _mean_step(images, masks, across=True)


def elsewhere(images: Tensor, masks: Tensor) -> Tensor:
    """The same over all other pairs of neighbours: (N,), float64."""
    return _mean_step(images, masks, across=False)


def _mean_step(images: Tensor, masks: Tensor, *, across: bool) -> Tensor:
    sums, counts = (torch.zeros(len(images), dtype=torch.float64) for _ in range(2))
    for axis in (-1, -2):  # neighbours in a row, then in a column
        steps = images.double().diff(dim=axis).abs().mean(1, keepdim=True)
        wanted = (masks.int().diff(dim=axis) != 0) == across
        sums += torch.where(wanted, steps, 0.0).sum((1, 2, 3))
        counts += wanted.sum((1, 2, 3))
    return sums / counts


def part_distances(parts: Tensor, sources: Tensor, masks: Tensor) -> Tensor:
    """Distance of a part of each image from the same part of each source: root mean squares, in grey levels.

    Args:
        parts: (N, C, H, W), uint8; image i is made from source i.
        sources: likewise, N >= 2.
        masks: (N, 1, H, W), bool: the part that is compared, at least a pixel.
    Returns: (N, N), float64.
    """
    rows = [
        ((sources.double() - part.double()).square() * mask).sum((1, 2, 3)) / (mask.sum() * parts.shape[1])
        for part, mask in zip(parts, masks, strict=True)
    ]
    return torch.stack(rows).sqrt()


def further_share(distances: Tensor) -> Tensor:
    """Share of other sources that are further from each part than its own: 1 if it is nearest to its own.

    Args:
        distances: (N, N), of `part_distances`.
    Returns: (N,), float64.
    """
    further = (distances > distances.diagonal()[:, None]).double()
    return further.sum(1) / (len(distances) - 1)
