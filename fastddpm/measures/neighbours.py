"""Features of a network at each place of normal images, and the distance of another image's features from the nearest
of them at the same place.

Nearest patches in features are Roth et al.'s (2022, PatchCore); here they lie at the same place, and the features are
those of the diffusion model itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SIDE = 16
"""places a side, at most, at which features are kept"""
MAX_FEATURES = 32
"""numbers at a place, at most: the first principal components"""
QUERIES = 64
"""images that are compared at once: always as many, so that an image's distance does not depend on the others"""
MAX_ROWS = 8192
"""normal images that are compared with at once"""

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

    rows: tuple[Tensor, ...]
    """each level of M normal images, (h, w, d + 1, M), float32: see `by_place`"""
    projections: tuple[Projection, ...]
    """projection that made each level"""
    scales: tuple[float, ...]
    """mean distance of normal images, for each level"""
    size: tuple[int, int]
    """height and width of the images"""

    @classmethod
    def fit(
        cls, levels: Levels, projections: Sequence[Projection], size: tuple[int, int], sample: Tensor, fixed: Tensor,
        groups: Tensor,
    ) -> "Bank":  # fmt: skip
        """The bank of M images.

        Args:
            levels: projected.
            projections: that made them.
            size: height and width of the images.
            sample: (K,), int64: images whose distances are the scales.
            fixed: (M,), bool: images that those are compared with.
            groups: (M,), int64, equal for images that belong together: none is compared with its own.
        """
        rows = tuple(by_place(level.half()) for level in levels)
        own = groups[sample][:, None] == groups
        near = [nearest(level[sample], row, own | ~fixed) for level, row in zip(levels, rows, strict=True)]
        scales = tuple(float(of.mean()) + torch.finfo(torch.float32).eps for of in near)
        return cls(rows, tuple(projections), scales, size)

    @property
    def levels(self) -> list[Tensor]:
        """Features that `by_place` made `rows` of: (M, d, h, w), float16."""
        return [(row[:, :, :-1] / -2).permute(3, 2, 0, 1).half() for row in self.rows]

    def maps(self, levels: Levels, without: Tensor | None = None) -> Tensor:
        """Maps of projected images: (N, H, W), on the CPU: the mean of the levels' distances from the nearest normal
        ones; of normal images about 1.

        Args:
            without: (N, M), bool: normal images that an image is not compared with; None: it is with all.
        """
        scaled = [
            F.interpolate((nearest(of, rows, without) / scale)[:, None], self.size, mode="bilinear")[:, 0]
            for of, rows, scale in zip(levels, self.rows, self.scales, strict=True)
        ]
        return torch.stack(scaled).mean(0)


def by_place(level: Tensor) -> Tensor:
    """(M, d, h, w) -> (h, w, d + 1, M), float32: -2 b and, last, |b|^2 of the features b of each image, so that the
    product with (q, 1) is |q - b|^2 less |q|^2."""
    rows = level.permute(2, 3, 1, 0).float()
    return torch.cat([-2 * rows, rows.square().sum(2, keepdim=True)], 2)


def nearest(level: Tensor, rows: Tensor, without: Tensor | None = None) -> Tensor:
    """At each place the distance from the nearest of the rows.

    Args:
        level: (N, d, h, w), float32; the computation runs where it is.
        rows: (h, w, d + 1, M), of `by_place`.
        without: (N, M), bool: rows that are left out for an image.
    Returns: (N, h, w), float32, on the CPU.
    """
    rows = rows.to(level.device)
    found = [level.new_empty(0, *level.shape[-2:])]
    left_out = torch.zeros(len(level), rows.shape[-1], dtype=torch.bool) if without is None else without
    for images, own in zip(level.split(QUERIES), left_out.to(level.device).split(QUERIES), strict=True):
        queries = F.pad(images, (0, 0, 0, 0, 0, 0, 0, QUERIES - len(images))).permute(2, 3, 0, 1)
        queries = F.pad(queries, (0, 1), value=1.0)  # (h, w, QUERIES, d + 1)
        mask = F.pad(own, (0, 0, 0, QUERIES - len(own))) if own.any() else None
        lines = [_nearest(*line, mask) for line in zip(queries, rows, strict=True)]
        found.append(torch.stack(lines).movedim(-1, 0)[: len(images)])
    return torch.cat(found).cpu()


def _nearest(queries: Tensor, rows: Tensor, without: Tensor | None) -> Tensor:
    """(w, n, d + 1), (w, d + 1, M), (n, M) -> (w, n); the distance of the nearest is taken anew from the features,
    as the product's rounding is that of |q|^2 and would show where images are alike."""
    least = queries.new_full(queries.shape[:2], torch.inf)
    found = torch.zeros_like(least, dtype=torch.long)
    for start in range(0, rows.shape[-1], MAX_ROWS):
        part = slice(start, start + MAX_ROWS)
        squares = torch.bmm(queries, rows[..., part])
        if without is not None:
            squares.masked_fill_(without[:, part], torch.inf)
        lower, at = squares.min(-1)
        found = torch.where(lower < least, at + start, found)
        least = torch.minimum(least, lower)
    features = rows[:, :-1].gather(2, found[:, None].expand(-1, rows.shape[1] - 1, -1)).transpose(1, 2) / -2
    apart = (queries[..., :-1] - features).square().sum(-1).sqrt()
    return torch.where(least.isinf(), torch.inf, apart)
