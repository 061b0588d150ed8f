"""Distance of samples from real images, in the features of a network: FID, KID, precision and recall, with intervals.

All of it eats features, (N, D), and knows neither images nor models. A score says little without its floor: the same
score of real images against other real ones, as many as there are samples (`floor`).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

NEIGHBOURS = 3
"""nearest neighbours of precision and recall (Kynkaanniemi et al. 2019, Sec. 3.1)"""
RESAMPLES = 200
_CHUNK = 2048
_WIDE = 0.2
"""width of an interval of a share that says little"""
_SAME = 1e-5
"""distance, in spreads of the features, below which two rows are of equal images: rounding in other batches"""


@dataclass(frozen=True)
class Scores:
    """Scores of samples against reals, in one network's features."""

    fid: float
    """Frechet distance; 0 for equal means and covariances, biased upwards by small numbers of images"""
    kid: float
    """kernel distance; unbiased, so also below 0"""
    precision: float
    """share of samples that lie among the reals"""
    recall: float
    """share of reals that lie among the samples"""
    num_samples: int
    num_reals: int
    num_features: int
    intervals: dict[str, tuple[float, float]]
    """interval of each score: 95 %, by bootstrap; of the two shares Wilson's, which also none or all of few have"""

    @property
    def doubts(self) -> dict[str, str]:
        """Doubts to have before believing each score at this number of images; a score that is not there has none."""
        found = {}
        for name, (low, high) in self.intervals.items():
            if name in ("precision", "recall") and high - low > _WIDE:
                found[name] = f"{name} is known to {high - low:.2g} only: too few images to compare it"
            if name == "kid" and low <= 0 <= high:
                found[name] = "kid cannot be told from 0 with so few images"
        if min(self.num_samples, self.num_reals) <= self.num_features:
            found["fid"] = (
                f"{self.num_samples} samples and {self.num_reals} reals are too few for {self.num_features} features: "
                "with no more images than features the covariances are singular and FID is mostly bias; use more images"
            )
        return found

    @property
    def doubt(self) -> str | None:
        """All doubts, a line each; None: nothing."""
        return "\n".join(self.doubts.values()) or None

    def row(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def scores(samples: Tensor, reals: Tensor, *, resamples: int = RESAMPLES, seed: int = 0) -> Scores:
    """All scores of samples against reals.

    Args:
        samples, reals: (N, D), (M, D), float.
        resamples: of the bootstrap; 0: no intervals.
        seed: of the bootstrap.
    Raises: ValueError: fewer than `NEIGHBOURS + 1` of either, or other features.
    """
    _check(samples, reals)
    inside, reached = memberships(samples, reals)
    frechet, (kernel, of_kernel) = fid(samples, reals), kid(samples, reals, resamples=resamples, seed=seed)
    intervals: dict[str, tuple[float, float]] = {}
    if of_kernel is not None:
        intervals["fid"] = interval(fid, samples, reals, frechet, resamples=resamples, seed=seed)
        intervals["kid"] = of_kernel
        for name, members in (("precision", inside), ("recall", reached)):  # neighbourhoods stay: duplicates had none
            low, high = stats.binomtest(int(members.sum()), len(members)).proportion_ci(method="wilson")
            intervals[name] = float(low), float(high)
    precision, recall = (float(members.double().mean()) for members in (inside, reached))
    return Scores(frechet, kernel, precision, recall, len(samples), len(reals), reals.shape[1], intervals)


def floor(reals: Tensor, num_samples: int, *, seed: int = 0) -> Scores:
    """Scores of real images against the other ones: what perfect samples would get, without intervals.

    Args:
        reals: (M, D).
        num_samples: as many of them as there are samples, at most half of them, stand in for samples.
    """
    return scores(*_parted(reals, num_samples, seed), resamples=0)


def beside_floor(samples: Tensor, reals: Tensor, *, seed: int = 0) -> Scores:
    """Scores to compare with the floor: as many of the samples, against the same reals, without intervals."""
    stand_ins, others = _parted(reals, len(samples), seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(samples)))
    return scores(samples[order[: len(stand_ins)]], others, resamples=0)


def fid(samples: Tensor, reals: Tensor) -> float:
    """Frechet distance of two normal distributions with the features' means and covariances, computed in float64.
    (Heusel et al. 2017, Eq. 6)

    Args:
        samples, reals: (N, D), (M, D), float; N and M should be well above D: see `Scores.doubt`.
    """
    a, b = samples.double().cpu(), reals.double().cpu()
    root = _root(torch.cov(a.T))
    cross = torch.linalg.eigvalsh(root @ torch.cov(b.T) @ root).clamp_min(0).sqrt().sum()
    means = (a.mean(0) - b.mean(0)).square().sum()
    return float(means + a.var(0).sum() + b.var(0).sum() - 2 * cross)


def kid(
    samples: Tensor, reals: Tensor, *, resamples: int = 0, seed: int = 0
) -> tuple[float, tuple[float, float] | None]:
    """Squared maximum mean discrepancy under the kernel (x.y / D + 1)^3, unbiased, over all pairs, and what `interval`
    gives for it, from the same pass: a resampled set is how often each image is in it.
    (Binkowski et al. 2018, Eq. 4)

    Args:
        samples, reals: (N, D), (M, D), float; N, M >= 2.
        resamples: of the bootstrap; 0: no interval.
        seed: of the bootstrap.
    """
    a, b = (of.double() if of.is_cuda else of.cpu().double() for of in (samples, reals))  # others may have no float64
    rng = np.random.default_rng(seed)
    times = [(_times(len(a), rng), _times(len(b), rng)) for _ in range(resamples)]
    once = torch.ones(len(a), dtype=torch.float64), torch.ones(len(b), dtype=torch.float64)
    of_a, of_b = (
        torch.stack(of, dim=1).to(a.device) for of in zip(once, *times, strict=True)
    )  # (N, 1 + R), (M, 1 + R)
    found, *drawn = (_pair_means(a, of_a) + _pair_means(b, of_b) - 2 * _cross_means(a, b, of_a, of_b)).tolist()
    return found, _centred(drawn, found) if drawn else None


def memberships(samples: Tensor, reals: Tensor, neighbours: int = NEIGHBOURS) -> tuple[Tensor, Tensor]:
    """Samples that lie among the reals, and reals among the samples: within the distance of some member of the other
    set to its k-th nearest neighbour there.  (Kynkaanniemi et al. 2019, Eq. 1)

    Neighbours of a real are different images: a repeated one would have a radius of 0, in which nothing lies. Repeated
    samples have it: they reach no more than one does.

    Args:
        samples, reals: (N, D), (M, D), float; precision and recall depend on both numbers.
    Returns: (N,) and (M,), bool; their means are precision and recall.
    """
    a, b = samples.double().cpu(), reals.double().cpu()
    different = _different(b)
    return _inside(a, different, _radii(different, neighbours)), _inside(b, a, _radii(a, neighbours))


def interval(
    score: Callable[[Tensor, Tensor], float],
    samples: Tensor,
    reals: Tensor,
    found: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """A 95 % interval of a score by bootstrap over samples and reals.

    A resampled set holds fewer different images, which raises every one of its distances alike: the interval is moved
    so that its middle is the score itself.

    Args:
        found: `score(samples, reals)`.
    """
    rng = np.random.default_rng(seed)
    return _centred([score(_resampled(samples, rng), _resampled(reals, rng)) for _ in range(resamples)], found)


def _parted(reals: Tensor, num_samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Reals that stand in for samples, and the others.  Raises: ValueError: too few different ones for two halves."""
    reals = _different(reals.double().cpu())  # a repeated image would stand on both sides
    if len(reals) < 2 * (NEIGHBOURS + 1):
        raise ValueError(
            f"got {len(reals)} different reals, and the floor is half of them against the others; give at least "
            f"{2 * (NEIGHBOURS + 1)}, and many more for numbers that mean something"
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(reals)))
    count = min(num_samples, len(reals) // 2)
    return reals[order[:count]], reals[order[count:]]


def _centred(drawn: Sequence[float], found: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975]) + found - np.mean(drawn)
    return float(low), float(high)


def _times(count: int, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(np.bincount(rng.integers(0, count, count), minlength=count)).double()


def _cross_means(a: Tensor, b: Tensor, of_a: Tensor, of_b: Tensor) -> Tensor:
    """Mean of the kernel over all pairs of a row of `a` and one of `b`, for each resampling: (R,)."""
    total = a.new_zeros(of_a.shape[1])
    for part, times in zip(a.split(_CHUNK), of_a.split(_CHUNK), strict=True):
        total += (times * ((part @ b.T / a.shape[1] + 1).pow(3) @ of_b)).sum(0)
    return total / (len(a) * len(b))


def _pair_means(rows: Tensor, times: Tensor) -> Tensor:
    """The same over all pairs of two different members of a set, which may be the same image: (R,)."""
    own = (times * (rows.square().sum(1) / rows.shape[1] + 1).pow(3)[:, None]).sum(0)
    count = len(rows)
    return (_cross_means(rows, rows, times, times) * count**2 - own) / (count * (count - 1))


def _resampled(rows: Tensor, rng: np.random.Generator) -> Tensor:
    return rows[torch.from_numpy(rng.integers(0, len(rows), len(rows)))]


def _check(samples: Tensor, reals: Tensor) -> None:
    if samples.dim() != 2 or reals.dim() != 2 or samples.shape[1] != reals.shape[1]:
        raise ValueError(f"features are {tuple(samples.shape)} and {tuple(reals.shape)}; wanted (N, D) and (M, D)")
    if min(len(samples), len(reals)) <= NEIGHBOURS:
        raise ValueError(
            f"got {len(samples)} samples and {len(reals)} reals; give at least {NEIGHBOURS + 1} of each, and many more "
            f"for numbers that mean something"
        )


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def _different(rows: Tensor) -> Tensor:
    """Rows without those that an earlier one equals up to rounding: (M, D)."""
    near, places = _SAME * rows.std(0).norm(), torch.arange(len(rows))
    firsts = [(torch.cdist(part, rows) <= near).to(torch.uint8).argmax(dim=1) for part in rows.split(_CHUNK)]
    return rows[torch.cat(firsts) == places]


def _radii(rows: Tensor, neighbours: int) -> Tensor:
    """Distance of each row to its k-th nearest other row, of fewer to the farthest: (N,)."""
    neighbours = min(neighbours, len(rows) - 1)
    found = [torch.cdist(part, rows).kthvalue(neighbours + 1, dim=1).values for part in rows.split(_CHUNK)]
    return torch.cat(found)  # the nearest is the row itself


def _inside(queries: Tensor, rows: Tensor, radii: Tensor) -> Tensor:
    return torch.cat([(torch.cdist(part, rows) <= radii).any(dim=1) for part in queries.split(_CHUNK)])
