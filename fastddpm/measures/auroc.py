"""Detection scored: AUROC, average precision and PRO of scores and maps, each with an interval.

An anomaly is the positive class and a higher score is more anomalous, everywhere. All of it eats numbers, and knows
neither images nor models.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor

MAX_FALSE_POSITIVES = 0.3
"""share of normal pixels up to which PRO's curve counts (Bergmann et al. 2020, Sec. 4.1)"""
RESAMPLES = 200
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Detection:
    """Scores and maps against the truth; 1 is perfect.

    Chance is 0.5 for AUROC, the share of anomalies for average precision, and 0.15 for PRO.
    """

    image_auroc: float
    """probability that an anomalous image has a higher score than a normal one, a tie counting half"""
    image_ap: float
    """mean precision over the recall of anomalous images"""
    pixel_auroc: float | None
    """the same of pixels, all images together; None: without masks"""
    pixel_ap: float | None
    """the same of pixels"""
    pro: float | None
    """mean share of an anomalous region that is found, over up to 30 % of normal pixels found too"""
    num_normal: int
    num_anomalous: int
    num_regions: int | None
    """connected parts of the masks, corners included"""
    intervals: Mapping[str, tuple[float, float]]
    """interval of each number: 95 %, by bootstrap over images, of either kind as many as there are"""

    def row(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def detection(
    scores: Tensor | np.ndarray,
    is_anomalous: Tensor | np.ndarray,
    maps: Tensor | np.ndarray | None = None,
    masks: Tensor | np.ndarray | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Detection:
    """Measure a detector.

    Args:
        scores: (B,), higher is more anomalous.
        is_anomalous: (B,), bool.
        maps: (B, H, W), likewise of each pixel.
        masks: (B, H, W), bool, where each image is anomalous: nowhere in a normal one.
        resamples: of the bootstrap; 0: no intervals.
        seed: of the bootstrap.
    Raises: ValueError: images of one kind only, other shapes, numbers that are not finite, or masks that do not fit.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(is_anomalous)
    _check(values, truth)
    levels = {"image": _Ranked.of(values, truth, np.arange(len(values)))}
    found: dict[str, float | None] = {
        "image_auroc": float(roc_auc_score(truth, values)),
        "image_ap": float(average_precision_score(truth, values)),
        "pixel_auroc": None, "pixel_ap": None, "pro": None,
    }  # fmt: skip
    num_regions = None
    if maps is not None or masks is not None:
        pixels, wanted = _pixels(maps, masks, truth)
        weights, num_regions = region_weights(wanted)
        images = np.repeat(np.arange(len(truth)), pixels[0].size)
        flat, positive, weight = pixels.ravel(), wanted.ravel(), weights.ravel()
        found["pixel_auroc"] = float(roc_auc_score(positive, flat))
        found["pixel_ap"] = float(average_precision_score(positive, flat))
        found["pro"] = pro(pixels, wanted)
        levels |= {"pixel": _Ranked.of(flat, positive, images), "region": _Ranked.of(flat, positive, images, weight)}
    return Detection(
        **found,  # type: ignore[arg-type]
        num_normal=int((~truth).sum()), num_anomalous=int(truth.sum()), num_regions=num_regions,
        intervals=_intervals(levels, truth, resamples, seed) if resamples else {},
    )  # fmt: skip


def pro(maps: np.ndarray, masks: np.ndarray) -> float:
    """Per-region overlap: the area under the mean share of a region found, over the share of normal pixels found, up to
    `MAX_FALSE_POSITIVES` of them, over the largest such area.  (Bergmann et al. 2020, Sec. 4.1)

    With anomalous pixels that weigh 1 over the size of their region, it is part of a ROC curve.

    Args:
        maps: (B, H, W), higher is more anomalous.
        masks: (B, H, W), bool; some pixels of each kind.
    """
    weights, _ = region_weights(masks)
    false, true, _ = roc_curve(masks.ravel(), maps.ravel(), sample_weight=weights.ravel(), drop_intermediate=False)
    return area_up_to(false, true, MAX_FALSE_POSITIVES)


def region_weights(masks: np.ndarray) -> tuple[Floats, int]:
    """Weight of each pixel in PRO: 1 in normal ones, 1 over the size of its region in others.

    Args:
        masks: (B, H, W), bool.
    Returns: (B, H, W), and the number of regions: parts whose pixels touch, if only by a corner.
    """
    touching = np.zeros((3, 3, 3), dtype=bool)
    touching[1] = True  # within an image
    regions, count = ndimage.label(masks, touching)
    sizes = np.bincount(regions.ravel(), minlength=count + 1).astype(np.float64)
    sizes[0] = 1
    return 1 / sizes[regions], int(count)


def area_up_to(false: Floats, true: Floats, limit: float) -> float:
    """Area under a ROC curve from 0 to `limit`, over `limit`; straight lines between its points.

    Args:
        false, true: (K,), the shares of normal and of anomalous ones found, both rising from 0 to 1.
    """
    inside = false < limit
    end = int(inside.sum())  # the first point at or beyond it
    at_limit = np.interp(limit, false[end - 1 : end + 1], true[end - 1 : end + 1])
    return float(np.trapezoid(np.append(true[inside], at_limit), np.append(false[inside], limit)) / limit)


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Numbers in falling order: sorted once, since a resampled set of images only weighs them otherwise."""

    images: NDArray[np.int64]
    """(N,), image that each is from"""
    positive: Floats
    """(N,), weight of each that is anomalous, else 0"""
    negative: Floats
    """(N,), weight of each that is normal, else 0"""
    ends: NDArray[np.int64]
    """(K,), the last of each run of equal numbers"""

    @classmethod
    def of(cls, values: Floats, truth: np.ndarray, images: np.ndarray, weights: Floats | None = None) -> "_Ranked":
        order = np.argsort(-values, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
        weight = np.ones(len(values)) if weights is None else weights[order]
        return cls(images[order], weight * truth[order], weight * ~truth[order], ends)

    def curve(self, times: Floats) -> tuple[Floats, Floats]:
        """Weight of the normal and of the anomalous ones above each number, with each image taken `times` times."""
        each = times[self.images]
        below = np.cumsum(self.negative * each)[self.ends], np.cumsum(self.positive * each)[self.ends]
        return np.concatenate([[0.0], below[0]]), np.concatenate([[0.0], below[1]])


def _intervals(levels: Mapping[str, _Ranked], truth: np.ndarray, resamples: int, seed: int) -> dict[str, Any]:
    """95 % points of each number, over sets of images drawn with repetition from those of either kind."""
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(truth), np.flatnonzero(~truth)]
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        chosen = np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])
        times = np.bincount(chosen, minlength=len(truth)).astype(np.float64)
        for level, ranked in levels.items():
            false, true = ranked.curve(times)
            for name, value in _numbers(level, false, true).items():
                drawn.setdefault(name, []).append(value)
    points = {name: np.quantile(values, [0.025, 0.975]) for name, values in drawn.items()}
    return {name: (float(low), float(high)) for name, (low, high) in points.items()}


def _numbers(level: str, false: Floats, true: Floats) -> dict[str, float]:
    """Numbers of a curve of weights found, by name."""
    shares = false / false[-1], true / true[-1]
    if level == "region":
        return {"pro": area_up_to(*shares, MAX_FALSE_POSITIVES)}
    found = np.maximum(false + true, np.finfo(np.float64).tiny)
    precision = true[1:] / found[1:]
    return {
        f"{level}_auroc": float(np.trapezoid(shares[1], shares[0])),
        f"{level}_ap": float((np.diff(shares[1]) * precision).sum()),
    }


def _check(scores: Floats, truth: np.ndarray) -> None:
    if scores.ndim != 1 or truth.shape != scores.shape or truth.dtype != np.bool_:
        raise ValueError(
            f"got scores of {scores.shape} and is_anomalous of {truth.shape}, {truth.dtype}; wanted (B,), and (B,) of "
            f"bool"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite; leave those out")
    if truth.all() or not truth.any():
        raise ValueError(
            f"got {int((~truth).sum())} normal and {int(truth.sum())} anomalous images; it takes some of both to tell "
            f"them apart"
        )


def _pixels(maps: Any, masks: Any, truth: np.ndarray) -> tuple[Floats, NDArray[np.bool_]]:
    """Raises: ValueError: one without the other, or what does not fit."""
    if maps is None or masks is None:
        raise ValueError(f"got {'masks without maps' if maps is None else 'maps without masks'}; give both, or neither")
    pixels, wanted = np.asarray(maps, dtype=np.float64), np.asarray(masks)
    if pixels.ndim != 3 or len(pixels) != len(truth) or wanted.shape != pixels.shape or wanted.dtype != np.bool_:
        raise ValueError(
            f"got maps of {pixels.shape} and masks of {wanted.shape}, {wanted.dtype}, for {len(truth)} images; wanted "
            f"(B, H, W), and the same of bool"
        )
    if not np.isfinite(pixels).all():
        raise ValueError("maps have pixels that are not finite; leave those images out")
    marked = wanted.any(axis=(1, 2))
    if (marked != truth).any():
        raise ValueError(
            f"{int((marked & ~truth).sum())} normal images have a mask that marks something, and "
            f"{int((truth & ~marked).sum())} anomalous ones have one that marks nothing; mend or leave out those"
        )
    if wanted.all():
        raise ValueError("the masks mark every pixel; some normal ones are needed")
    return pixels, wanted
