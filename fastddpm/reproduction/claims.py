"""The paper's claims as numbers, each beside a control and a verdict by thresholds of the config; knows images and
features only, neither models nor files."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fastddpm.config import ReproductionConfig
from fastddpm.evaluation.fidelity import Scores, floor, scores
from fastddpm.evaluation.similarity import (
    Estimate,
    Relation,
    estimate,
    further_share,
    spearman,
    steps_across,
    to_inputs,
)
from fastddpm.reproduction.dial import Classes, Features, Mark, dial
from fastddpm.reproduction.drawings import SIMILAR, UNRELATED, Drawings

Verdict = Literal["holds", "does not hold", "cannot tell"]


@dataclass(frozen=True)
class Claim:
    """A row of the report."""

    figure: int
    claim: str
    measured: str
    control: str
    verdict: Verdict
    settles: str
    """what would settle it, or make it surer"""
    numbers: dict[str, Any]
    """plain JSON values"""

    def row(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Measured:
    """All numbers."""

    claims: list[Claim]
    marks: list[Mark]
    ddpm: Scores
    dcgan: Scores
    floor: Scores
    """of as many real images"""


def measure(
    config: ReproductionConfig, drawings: Drawings, of_reals: Tensor, features: Features, classes: Classes | None
) -> Measured:
    """Everything, in the order of the figures.

    Args:
        of_reals: features of the reals, (M, D).
    """

    def scored(images: np.ndarray) -> Scores:
        return scores(features(images), of_reals, resamples=config.measure.resamples, seed=config.seed)

    ddpm, dcgan = scored(drawings.samples), scored(drawings.of_dcgan)
    least = floor(of_reals, len(drawings.samples), seed=config.seed)
    marks = dial(config, drawings, features, classes)
    found = [
        *from_data(config, of_reals, features(drawings.from_data)),
        against_dcgan(config, ddpm, dcgan, least),
        *of_dial(config, marks),
        *of_blends(config, drawings),
    ]
    return Measured(found, marks, ddpm, dcgan, least)


def from_data(config: ReproductionConfig, of_reals: Tensor, of_drawn: Tensor) -> list[Claim]:
    """Figures 3 and 5: held-out images noised to the end and denoised.

    Args:
        of_reals, of_drawn: features, (M, D), (N, D); image i was drawn from real i.
    """
    count, seed = len(of_drawn), config.seed
    found = scores(of_drawn, of_reals, resamples=config.measure.resamples, seed=seed)
    least = floor(of_reals, count, seed=seed)
    limit = config.claims.near_floors * least.fid
    low, high = found.intervals.get("fid", (found.fid, found.fid))
    near = Claim(
        config.figure_from_data,
        "images drawn from fully noised held-out images look like the data",
        f"FID {_with_interval(found.fid, low, high)}, {found.num_samples:,} images",
        f"FID {least.fid:.3g} of {least.num_samples:,} real images; near: at most {limit:.3g}",
        "cannot tell" if found.doubt else below(Estimate(found.fid, low, high), limit),
        found.doubt or "longer training; more images narrow the interval",
        {"scores": found.row(), "floor": least.row()},
    )
    seen = to_inputs(of_reals[:count], of_drawn[:, None], resamples=config.measure.resamples, seed=config.seed)
    return [near, unrelated(config, config.figure_from_data, "and are not the images they were drawn from", seen)]


def unrelated(config: ReproductionConfig, figure: int, claim: str, seen: Relation) -> Claim:
    """Whether images that belong together are as far apart as random pairs."""
    ratio, widest = seen.ratio, config.claims.widest_interval
    wide = ratio.high - ratio.low > widest
    return Claim(
        figure,
        claim,
        f"distance {seen.own:.3g}; {ratio} of random pairs'",
        f"distance {seen.random:.3g} of the same images paired at random; unrelated: the interval reaches 1",
        "does not hold" if ratio.high < 1 else "cannot tell" if wide else "holds",
        f"more images: the interval is wider than {widest:g}" if wide else "more images narrow the interval",
        seen.row(),
    )


def against_dcgan(config: ReproductionConfig, ddpm: Scores, dcgan: Scores, least: Scores) -> Claim:
    """Figures 4 and 6."""
    (low, high), (other_low, other_high) = (
        scores.intervals.get("fid", (scores.fid, scores.fid)) for scores in (ddpm, dcgan)
    )
    doubt = ddpm.doubt or dcgan.doubt
    verdict: Verdict = "holds" if low <= other_high else "does not hold"
    return Claim(
        config.figure_of_dcgan,
        "the DDPM is about as good as the DCGAN",
        f"FID {_with_interval(ddpm.fid, low, high)}",
        f"DCGAN's FID {_with_interval(dcgan.fid, other_low, other_high)}; as good: the intervals overlap, or lower",
        "cannot tell" if doubt else verdict,
        doubt or "a larger budget for both, and several seeds of training",
        {"ddpm": ddpm.row(), "dcgan": dcgan.row(), "floor": least.row()},
    )


def of_dial(config: ReproductionConfig, marks: Sequence[Mark]) -> list[Claim]:
    """Figures 7 and 8."""
    at = {mark.start: mark for mark in marks}
    end, similar = at[UNRELATED], at[SIMILAR]
    copies = "copies of one image, noised to the end once and each denoised,"
    claims = [
        unrelated(config, 7, f"{copies} are not that image", end.to_input),
        unrelated(config, 7, f"{copies} are unrelated to each other", end.among_siblings),
    ]
    starts = np.array([mark.start for mark in marks])
    trend = spearman(starts, np.array([mark.to_input.own for mark in marks]))
    least = config.claims.least_correlation
    claims.append(
        Claim(
            8,
            "the start timestep is a dial of similarity",
            f"Spearman's correlation of start and distance to the input {trend:.3g}, {len(marks)} starts",
            f"0 without a dial; a dial: at least {least:g}",
            "holds" if trend >= least else "does not hold",
            "more inputs at each start",
            {"spearman": trend, "marks": [mark.row() for mark in marks]},
        )
    )
    kept = (
        ""
        if similar.same_class is None
        else f"; {similar.same_class:.0%} keep the class ({similar.same_class_at_random:.0%} of random pairs)"
    )
    claims.append(
        Claim(
            8,
            f"from t = {SIMILAR} copies resemble the image and differ in detail",
            f"distance to it {similar.to_input.ratio} of random pairs', to each other "
            f"{similar.among_siblings.ratio}{kept}",
            f"1 for random pairs, 0 for equal images; similar: below {config.claims.similar:g}",
            below(similar.to_input.ratio, config.claims.similar),
            "more inputs narrow the interval",
            similar.row(),
        )
    )
    return claims


def of_blends(config: ReproductionConfig, drawings: Drawings) -> list[Claim]:
    """Figure 9: whether the seam of a paste is gone, and whether both parts are still what they were."""
    count = len(drawings.blends)
    images, partners = (torch.from_numpy(drawings.reals[first : first + count]) for first in (0, count))
    blends, pastes = torch.from_numpy(drawings.blends), torch.from_numpy(drawings.pastes)
    masks = torch.from_numpy(drawings.masks).expand(count, -1, -1, -1)
    ordinary = (steps_across(images, masks) + steps_across(partners, masks)) / 2
    before, after = steps_across(pastes, masks), steps_across(blends, masks)
    options: dict[str, Any] = {"resamples": config.measure.resamples, "seed": config.seed}

    def over_ordinary(steps: Tensor) -> Estimate:
        a, b = steps.numpy(), ordinary.numpy()
        return estimate(lambda places: float(a[places].mean() / max(b[places].mean(), 1e-12)), count, **options)

    excess, limit = over_ordinary(after), 1 + config.claims.seam
    seam = Claim(
        9,
        "denoising from t = 300 smooths the seam of a paste",
        f"step across the seam {excess} of the ordinary one; {over_ordinary(before)} before",
        f"ordinary: {float(ordinary.mean()):.3g} grey levels, at the same places of the two images; smooth: at most "
        f"{limit:g} of it",
        below(excess, limit),
        "more pairs narrow the interval",
        {"before": over_ordinary(before).row(), "after": excess.row(), "ordinary": float(ordinary.mean())},
    )
    shares = {
        "image": further_share(blends, images, ~masks).numpy(),
        "partner": further_share(blends, partners, masks).numpy(),
    }
    means = {name: mean_of(own, **options) for name, own in shares.items()}
    least = config.claims.own_part
    worse = min(means.values(), key=lambda mean: mean.value)
    parts = Claim(
        9,
        "and both parts keep their character",
        f"{means['image']} of the other images are further from the image's part than it is, {means['partner']} of the "
        f"others from the partner's",
        f"0.5 for unrelated parts; kept: at least {least:g} for both",
        above(worse, least),
        "more pairs narrow the interval; an earlier start keeps more",
        {name: mean.row() for name, mean in means.items()},
    )
    return [seam, parts]


def mean_of(values: np.ndarray, *, resamples: int, seed: int) -> Estimate:
    """The mean of independent numbers."""
    return estimate(lambda places: float(values[places].mean()), len(values), resamples=resamples, seed=seed)


def below(found: Estimate, limit: float) -> Verdict:
    """Whether a number is at most a limit, as far as its interval tells."""
    if found.high <= limit:
        return "holds"
    return "does not hold" if found.low > limit else "cannot tell"


def above(found: Estimate, limit: float) -> Verdict:
    """Whether a number is at least a limit, as far as its interval tells."""
    if found.low >= limit:
        return "holds"
    return "does not hold" if found.high < limit else "cannot tell"


def _with_interval(value: float, low: float, high: float) -> str:
    return str(Estimate(value, low, high))
