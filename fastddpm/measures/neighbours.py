"""Features of a network at each place of normal images, and the distance of another image's features from the nearest
of them at about the same place.

Nearest patches in features are Roth et al.'s (2022, PatchCore); here they must lie at about the same place, and the
features are those of the diffusion model itself.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FOLDS = 5


def folds(count: int, groups: Tensor | None = None) -> Iterator[Tensor]:
    """Deal images into parts, those that belong together into one.

    Args:
        groups: (count,), int64, equal for images that belong together; None, or fewer than parts: each is alone.
    Returns: images of each part, (count,), bool.
    """
    places = torch.arange(count)
    rank = places if groups is None else torch.unique(groups, return_inverse=True)[1]
    part = (places if rank.max() + 1 < FOLDS else rank) % FOLDS
    return (part == number for number in range(FOLDS))


FLOOR = 0.3
"""share of the mean variance, added at each place: where normal images never change, little is not yet much"""


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance of normal images' residuals, place by place."""

    mean: Tensor
    """(M, C, H, W), float32: of M residuals of an image"""
    variance: Tensor
    """(M, C, H, W), float32"""

    @classmethod
    def of(cls, residuals: Tensor) -> "Moments":
        """Moments of normal images: (N, M, C, H, W)."""
        variance, mean = torch.var_mean(residuals, dim=0)
        floor = FLOOR * variance.mean(dim=(1, 2, 3), keepdim=True) + torch.finfo(torch.float32).eps
        return cls(mean, variance + floor)

    @classmethod
    def fit(cls, residuals: Tensor, groups: Tensor | None = None) -> tuple["Moments", Tensor]:
        """The moments, and the maps of the same images, (N, H, W): each by moments that have seen none of its group."""
        maps = torch.empty(len(residuals), *residuals.shape[-2:])
        for inside in folds(len(residuals), groups):
            maps[inside] = cls.of(residuals[~inside]).maps(residuals[inside])
        return cls.of(residuals), maps

    def maps(self, residuals: Tensor) -> Tensor:
        """(N, M, C, H, W) -> (N, H, W): squared distances from normal residuals, in variances, smoothed; of normal
        images about 1."""
        squares = ((residuals - self.mean).square_() / self.variance).mean(dim=(1, 2))
        size = smoothing_of(squares.shape[-2], squares.shape[-1])
        return F.avg_pool2d(squares[:, None], size, 1, size // 2, count_include_pad=False)[:, 0]


def smoothing_of(height: int, width: int) -> int:
    """Side of the square over which maps are averaged: about a ninth of the image's, odd, at least 3."""
    return max(3, round(min(height, width) / 9) // 2 * 2 + 1)


MAX_SIDE = 16
"""places a side, at most, at which features are kept"""
MAX_FEATURES = 64
"""numbers at a place, at most: the first principal components"""
REACH = 1
"""places around a place where a neighbour may lie"""
QUERIES = 64
"""images that are compared at once: always as many, so that an image's distance does not depend on the others"""
MAX_DISTANCES = 2**24
"""distances that are held in memory at once, 64 MiB; of more normal images a part is taken after the other"""

Levels = Sequence[Tensor]
"""features of each level, (N, D, h, w), float32: of N images, what is seen at h x w places"""


def coarse(maps: Tensor) -> Tensor:
    """(N, D, H, W) -> (N, D, h, w), averaged to at most `MAX_SIDE` places a side."""
    step = -(-max(maps.shape[-2:]) // MAX_SIDE)
    return maps if step == 1 else F.avg_pool2d(maps, step, ceil_mode=True, count_include_pad=False)


@dataclass(frozen=True, eq=False)
class Projection:
    """Features as their first principal components, each feature in standard deviations."""

    mean: Tensor
    """(D,), float32"""
    matrix: Tensor
    """(D, d), float32"""

    @classmethod
    def of(cls, level: Tensor) -> "Projection":
        """Projection from what is seen in some normal images, (N, D, h, w)."""
        rows = level.movedim(1, -1).flatten(0, -2).double().cpu()
        mean, spread = rows.mean(0), rows.std(0) + torch.finfo(torch.float32).eps
        axes = torch.linalg.eigh(torch.cov((rows / spread).T).reshape(len(mean), -1)).eigenvectors[:, -MAX_FEATURES:]
        return cls(mean.float(), (axes / spread[:, None]).float())

    def __call__(self, level: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, d, h, w), on the device of these."""
        mean, matrix = self.mean.to(level.device), self.matrix.to(level.device)
        return ((level.movedim(1, -1) - mean) @ matrix).movedim(-1, 1)


@dataclass(frozen=True, eq=False)
class Bank:
    """Normal images, as a network sees them."""

    banks: tuple[Tensor, ...]
    """bank of each level, (M, d, h, w), float16: of M normal images"""
    projections: tuple[Projection, ...]
    """projection that made each level"""
    scales: tuple[float, ...]
    """mean distance of normal images, for each level"""
    size: tuple[int, int]
    """height and width of the images"""

    @classmethod
    def fit(
        cls, levels: Levels, known: Levels | None, projections: Sequence[Projection], size: tuple[int, int],
        groups: Tensor | None = None,
    ) -> tuple["Bank", Tensor]:  # fmt: skip
        """The neighbours, and the maps of the first images, (N, H, W): each by the others.

        Args:
            levels: of N normal images, projected.
            known: of others, that they are compared with too; none of `levels` may be among them.
            projections: that made both.
            size: height and width of the images.
            groups: (N,), int64, equal for images that belong together: none is compared with its own.
        """
        more = [level[:0] for level in levels] if known is None else known
        distances = [_by_the_others(level, others, groups) for level, others in zip(levels, more, strict=True)]
        scales = tuple(float(of.mean()) + torch.finfo(torch.float32).eps for of in distances)
        banks = tuple(torch.cat(pair).half().cpu() for pair in zip(levels, more, strict=True))
        made = cls(banks, tuple(projections), scales, size)
        return made, made._together(distances)

    def maps(self, levels: Levels, same: Tensor | None = None) -> Tensor:
        """Maps of projected images: (N, H, W), on the CPU: the mean of the levels' distances from the nearest normal
        ones; of normal images about 1.

        Args:
            same: (N, M), bool: which of the normal images each image is, and is not compared with; None: it is none.
        """
        return self._together([nearest(level, bank, same) for level, bank in zip(levels, self.banks, strict=True)])

    def _together(self, distances: Sequence[Tensor]) -> Tensor:
        scaled = [
            F.interpolate((of / scale)[:, None], self.size, mode="bilinear", align_corners=False)[:, 0]
            for of, scale in zip(distances, self.scales, strict=True)
        ]
        return torch.stack(scaled).mean(0)


def _by_the_others(level: Tensor, known: Tensor, groups: Tensor | None) -> Tensor:
    """(N, h, w): distances of images from the nearest of the other parts, or of the known."""
    found = torch.empty(len(level), *level.shape[-2:])
    for inside in folds(len(level), groups):
        found[inside] = nearest(level[inside], torch.cat([level[~inside], known]).half())
    return found


def nearest(level: Tensor, bank: Tensor, same: Tensor | None = None) -> Tensor:
    """At each place the distance from the nearest of `bank` at the same place or `REACH` beside it.

    Args:
        level: (N, d, h, w), float32; the computation runs where it is.
        bank: (M, d, h, w), float16.
        same: (N, M), bool: rows of `bank` that are left out for an image.
    Returns: (N, h, w), float32, on the CPU.
    """
    places = level.shape[2] * level.shape[3]
    part = max(1, MAX_DISTANCES // (QUERIES * places))
    rows = [_by_place(piece.to(level.device).float()) for piece in bank.split(part)]
    found = [level.new_empty(0, *level.shape[-2:])]
    left_out = torch.zeros(len(level), len(bank), dtype=torch.bool) if same is None else same
    for images, own in zip(level.split(QUERIES), left_out.to(level.device).split(QUERIES), strict=True):
        queries = _by_place(F.pad(images, (0, 0, 0, 0, 0, 0, 0, QUERIES - len(images))))
        parts = F.pad(own, (0, 0, 0, QUERIES - len(own))).split(part, dim=1) if own.any() else [None] * len(rows)
        of_parts = [_nearest(queries, of, without) for of, without in zip(rows, parts, strict=True)]
        distances = torch.stack(of_parts).amin(0)  # (h, w, QUERIES)
        found.append(distances.movedim(-1, 0)[: len(images)])
    return torch.cat(found).cpu()


def _by_place(maps: Tensor) -> Tensor:
    """(N, d, h, w) -> (h, w, N, d)."""
    return maps.permute(2, 3, 0, 1).contiguous()


def _nearest(queries: Tensor, rows: Tensor, without: Tensor | None) -> Tensor:
    """(h, w, n, d), (h, w, M, d), (n, M) -> (h, w, n)."""
    height, width = queries.shape[:2]
    found = queries.new_full(queries.shape[:3], torch.inf)
    for down, right in itertools.product(range(-REACH, REACH + 1), repeat=2):
        ys, xs = slice(max(0, -down), height - max(0, down)), slice(max(0, -right), width - max(0, right))
        there = rows[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
        if there.shape[0] and there.shape[1]:
            here = found[ys, xs]
            distances = torch.cdist(queries[ys, xs], there)
            if without is not None:
                distances.masked_fill_(without, torch.inf)
            torch.minimum(here, distances.amin(-1), out=here)
    return found
