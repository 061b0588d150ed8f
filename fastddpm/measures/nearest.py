"""Copies of training images among samples: the distance to the nearest one, against that of real images.

An image's *closeness* is its distance to the nearest training image over the mean distance to its 50 nearest ones: near
0 for a copy of one image, near 1 for an image that lies between many (Carlini et al. 2023, Sec. 5.1 use this ratio; the
plain distance would also be small for every blurred image). Real images that were not trained on have a closeness too:
held-out ones, or else training images against all others. If samples were fresh images, they and the reals would be
exchangeable, so the chance that as many samples as seen, or more, lie below the reals' fifth percentile is known
exactly, for any numbers of both. Samples are called copies when that chance is at most 1 in 1,000 and they are at least
a tenth of all.

Samples that are not like real images yet are no copies for it, and nothing is said of them: if half of them are farther
from every training image, noisier or smoother than 95 % of the reals are.

Equal training images count once, so that neither duplicates hide copies nor a duplicate passes for one; a held-out
image that is also a training image is left out. Where training mirrors, an image equals its mirrored one.
"""

import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from scipy import stats
from torch import Tensor

NEIGHBOURS = 50
QUANTILE = 0.05
MAX_CHANCE = 1e-3
MIN_SHARE = 0.1
MIN_COMPARED = 3
"""different training images, to speak of a nearest one among others"""
MAX_REALS = 256
"""real images that say how near is ordinary: their fifth percentile is the twelfth nearest, and each costs as much as a
sample"""
CHUNK = 1024


Unlike = Literal["farther from every training image", "noisier", "smoother"]


@dataclass(frozen=True)
class Nearest:
    """Nearest reference of each query."""

    ids: Tensor
    """(N,), int64"""
    distances: Tensor
    """(N,), float32, the root of the mean square difference, in grey levels"""
    closeness: Tensor
    """(N,), float32, from 0 (a copy) to 1"""


@dataclass(frozen=True)
class Verdict:
    """Verdict on samples compared with training images."""

    kind: Literal["copies", "no copies", "cannot tell"]
    samples: Nearest
    num_close: int
    """samples below the reals' fifth percentile"""
    chance: float
    """probability of at least so many, if the samples were fresh images"""
    threshold: float
    num_reals: int
    unlike: Unlike | None = None
    """a difference of the samples so large that "no copies" would say nothing"""


class TrainingImages:
    """The images to look for copies of.

    Args:
        gather: (B,) int64 ids -> (B, C, H, W) uint8.
        ids: of the training images to compare with, (n,), int64.
        held_out: real images that were not trained on, (M, C, H, W) uint8; None: `MAX_REALS` training images stand in.
        flips: axes of (C, H, W) that training mirrors, -1 and -2; a copy mirrored along any of them is a copy too.
    """

    def __init__(
        self,
        gather: Callable[[Tensor], Tensor],
        ids: Tensor,
        held_out: Tensor | None,
        *,
        flips: Sequence[int] = (),
    ):
        self._gather = gather
        self._mirrors = [axes for count in range(1 + len(flips)) for axes in itertools.combinations(flips, count)]
        unique: dict[bytes, int] = {}
        for part in ids.split(CHUNK):
            for key, id_ in zip(self._keys(gather(part)), part.tolist(), strict=True):
                unique.setdefault(key, id_)
        self.num_duplicates = len(ids) - len(unique)
        self._ids = torch.tensor(list(unique.values()), dtype=torch.int64)
        self.reals: Literal["held_out", "training"] = "training" if held_out is None else "held_out"
        own: Tensor | None = None
        if held_out is None:
            own = torch.arange(min(MAX_REALS, len(self._ids)))
            real_images = gather(self._ids[own])
        else:
            real_images = held_out[[i for i, key in enumerate(self._keys(held_out)) if key not in unique]]
        found = self.neighbours(real_images, own)
        self._of_reals = found.closeness.sort().values
        self._distances, self._roughness = found.distances, roughness(real_images).cpu()

    def __len__(self) -> int:
        """Number of different images."""
        return len(self._ids)

    @property
    def threshold(self) -> float | None:
        """The closeness below which an image is close to a training image: the fifth percentile of the reals'; None:
        there are no reals, or too few training images."""
        if not len(self._of_reals) or len(self) < MIN_COMPARED:
            return None
        return float(self._of_reals[self._place - 1])

    @property
    def real_distance(self) -> float | None:
        """The median distance of a real image to the training image nearest to it, as `Nearest.distances`; None: there
        are no reals."""
        return float(self._distances.median()) if len(self._distances) else None

    @property
    def _place(self) -> int:
        """Place of the threshold among the sorted reals, from 1."""
        return max(1, int(QUANTILE * len(self._of_reals)))

    def judge(self, samples: Tensor) -> Verdict:
        """Compare samples, (N, C, H, W) uint8, N >= 1."""
        found = self.neighbours(samples)
        num_reals, num_samples = len(self._of_reals), len(samples)
        place, threshold = self._place, self.threshold
        if threshold is None or exchangeable_chance(num_samples, num_samples, num_reals, place) > MAX_CHANCE:
            return Verdict("cannot tell", found, 0, 1.0, 0.0, num_reals)
        num_close = int((found.closeness < threshold).sum())
        chance = exchangeable_chance(num_close, num_samples, num_reals, place)
        if chance <= MAX_CHANCE and num_close >= MIN_SHARE * num_samples:
            return Verdict("copies", found, num_close, chance, threshold, num_reals)
        unlike = self._unlike(samples, found)
        kind: Literal["no copies", "cannot tell"] = "cannot tell" if unlike else "no copies"
        return Verdict(kind, found, num_close, chance, threshold, num_reals, unlike)

    def _unlike(self, samples: Tensor, found: Nearest) -> Unlike | None:
        rough = roughness(samples).cpu()
        seen: list[tuple[Unlike, Tensor, Tensor]] = [
            ("farther from every training image", found.distances, self._distances),
            ("noisier", rough, self._roughness),
            ("smoother", -rough, -self._roughness),
        ]
        for name, of_samples, of_reals in seen:
            count = int((of_samples > of_reals.sort(descending=True).values[self._place - 1]).sum())
            chance = exchangeable_chance(count, len(samples), len(of_reals), self._place)
            if 2 * count >= len(samples) and chance <= MAX_CHANCE:
                return name
        return None

    def neighbours(self, queries: Tensor, own: Tensor | None = None) -> Nearest:
        """The nearest of the training images to each query.

        Args:
            queries: (N, C, H, W), uint8.
            own: (N,), int64: places of the queries among the training images, which are no neighbours of themselves.
        """
        flat = _flat(queries)
        count = min(NEIGHBOURS, len(self) - 1) or 1  # as many with and without `own`
        best = torch.full((len(flat), count), math.inf, device=flat.device)
        places = torch.zeros((len(flat), count), dtype=torch.int64, device=flat.device)
        for first in range(0, len(self._ids), CHUNK):
            references = self._gather(self._ids[first : first + CHUNK]).to(flat.device)
            seen = [_squared_distances(flat, _flat(references.flip(axes))) for axes in self._mirrors]
            squares = functools.reduce(torch.minimum, seen)  # (N, n)
            if own is not None:
                inside = ((own >= first) & (own < first + squares.shape[1])).nonzero()[:, 0]
                squares[inside, own[inside] - first] = math.inf
            here = torch.arange(first, first + squares.shape[1], device=flat.device).expand_as(squares)
            best, order = torch.cat([best, squares], 1).topk(count, largest=False)
            places = torch.cat([places, here], 1).gather(1, order)
        ids = self._ids[places[:, 0].cpu()]
        exact = self._exact(flat, ids)
        mean = torch.cat([exact[:, None], best[:, 1:].clamp_min(0).div(flat.shape[1]).sqrt()], 1).mean(1)
        return Nearest(ids, exact.cpu(), (exact / mean.clamp_min(1e-12)).cpu())

    def _keys(self, images: Tensor) -> list[bytes]:
        """Equal for images that are equal, or mirrored as training mirrors them, only."""
        mirrored = [images.flip(axes).cpu().numpy() for axes in self._mirrors]
        pairs = zip(*mirrored, strict=True)
        return [min(hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in of) for of in pairs]

    def _exact(self, queries: Tensor, ids: Tensor) -> Tensor:
        """Distance of each query to one reference, without the product's rounding: root mean squares, (N,), float32."""
        found: list[Tensor] = []
        for some, part in zip(queries.split(CHUNK), ids.split(CHUNK), strict=True):
            references = self._gather(part).to(queries.device)
            seen = [(some - _flat(references.flip(axes))).square().mean(1) for axes in self._mirrors]
            found.append(functools.reduce(torch.minimum, seen).sqrt())
        return torch.cat(found)


def roughness(images: Tensor) -> Tensor:
    """The mean difference of neighbouring pixels of (N, C, H, W) uint8 images, in grey levels: (N,), float32."""
    pixels = images.float()
    steps = [pixels.diff(dim=axis).abs().flatten(1).mean(1) for axis in (2, 3) if images.shape[axis] > 1]
    return torch.stack(steps).mean(0) if steps else pixels.new_zeros(len(pixels))


def exchangeable_chance(num_close: int, num_samples: int, num_reals: int, place: int) -> float:
    """P(at least `num_close` of the samples lie below the `place`-th smallest real), if all are exchangeable.

    It is the case when, of the `num_close + place - 1` smallest of all, at least `num_close` are samples.
    """
    smallest = num_close + place - 1
    return float(stats.hypergeom.sf(num_close - 1, num_samples + num_reals, num_samples, smallest))


def nearest_distances(queries: Tensor, rows: Tensor) -> Tensor:
    """Distance of each query to the nearest row.

    Args:
        queries, rows: (N, D), (M, D), float, such as features.
    Returns: (N,), float64; exactly 0 for a copy.
    """
    exact = "donot_use_mm_for_euclid_dist"
    parts = queries.double().split(CHUNK)
    return torch.cat([torch.cdist(part, rows.double(), compute_mode=exact).min(dim=1).values for part in parts])


def _flat(images: Tensor) -> Tensor:
    return images.flatten(1).float() - 127.5  # centred: float32 products lose less


def _squared_distances(queries: Tensor, references: Tensor) -> Tensor:
    """|| a - b ||^2 = ||a||^2 + ||b||^2 - 2 a.b, one product for all pairs: (N, n), float32."""
    norms = queries.square().sum(1)[:, None] + references.square().sum(1)[None, :]
    return norms - 2 * queries @ references.T
