"""The paper's claims as numbers, each beside a control and a verdict by thresholds of the config; knows images and
features only, neither models nor files."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fastddpm.measures.fidelity import Scores, floor, scores
from fastddpm.measures.similarity import (
    Estimate,
    Relation,
    elsewhere,
    estimate,
    further_share,
    part_distances,
    relation,
    spearman,
    steps_across,
    to_inputs,
)
from fastddpm.studies.paper.drawings import SIMILAR, UNRELATED, Drawings, Seen
from fastddpm.studies.paper.settings import ReproductionConfig
from fastddpm.studies.paper.similarity_by_start import Mark, dial

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
    """measurement that would settle it, or make it surer"""
    numbers: dict[str, Any]
    """plain JSON values"""


@dataclass(frozen=True)
class Measured:
    """All numbers."""

    claims: list[Claim]
    marks: list[Mark]
    ddpm: Scores
    dcgan: Scores
    floor: Scores
    """scores of as many real images"""


def measure(config: ReproductionConfig, drawings: Drawings, seen: Seen) -> Measured:
    """Everything, in the order of the figures."""
    ddpm, dcgan = (scores(of, seen.reals, **config.bootstrap) for of in (seen.samples, seen.of_dcgan))
    least = floor(seen.reals, len(seen.samples), seed=config.seed)
    marks = dial(config, drawings, seen)
    found = [
        *from_data(config, seen, marks),
        against_dcgan(config, ddpm, dcgan, least),
        *of_dial(config, marks),
        *of_blends(config, drawings),
    ]
    return Measured(found, marks, ddpm, dcgan, least)


def from_data(config: ReproductionConfig, seen: Seen, marks: Sequence[Mark]) -> list[Claim]:
    """Figures 3 and 5: held-out images noised to the end and denoised; image i was drawn from real i."""
    count = len(seen.from_data)
    found = scores(seen.from_data, seen.reals, **config.bootstrap)
    least = floor(seen.reals, count, seed=config.seed)
    limit = config.claims.near_floors * least.fid
    fid = _fid_of(found)
    near = Claim(
        config.figure_from_data,
        "images drawn from fully noised held-out images look like the data",
        f"FID {fid}, {found.num_samples:,} images",
        f"FID {least.fid:.3g} of {least.num_samples:,} real images; near: at most {limit:.3g}",
        "cannot tell" if "fid" in found.doubts else below(fid, limit),
        found.doubts.get("fid", "longer training; more images narrow the interval"),
        {"scores": found.row(), "floor": least.row()},
    )
    to_own = to_inputs(seen.reals[:count], seen.from_data[:, None], **config.bootstrap)
    what = "and are not the images they were drawn from"
    return [near, unrelated(config, config.figure_from_data, what, to_own, marks)]


def unrelated(config: ReproductionConfig, figure: int, claim: str, seen: Relation, marks: Sequence[Mark]) -> Claim:
    """Claim that images that belong together are as far apart as random pairs.

    Args:
        marks: of the dial; its first turn is a control: features that do not see that those variations are alike would
            not see it here either.
    """
    ratio, widest = seen.ratio, config.claims.widest_interval
    wide = ratio.high - ratio.low > widest
    first = marks[1]
    is_blind = first.to_input.ratio.high >= config.claims.similar
    settles = "more images narrow the interval"
    if wide:
        settles = f"more images: the interval is wider than {widest:g}"
    if is_blind:
        settles = f"features that see that images from t = {first.start} are alike, or a model whose images are"
    return Claim(
        figure,
        claim,
        f"distance {seen.own:.3g}; {ratio} of random pairs'",
        f"distance {seen.random:.3g} of the same images paired at random; unrelated: the interval of the ratio holds "
        f"or exceeds 1, and is at most {widest:g} wide; from t = {first.start} the ratio is {first.to_input.ratio}",
        "does not hold" if ratio.high < 1 else "cannot tell" if wide or is_blind else "holds",
        settles,
        seen.row(),
    )


def against_dcgan(config: ReproductionConfig, ddpm: Scores, dcgan: Scores, least: Scores) -> Claim:
    """Figures 4 and 6."""
    ours, other = _fid_of(ddpm), _fid_of(dcgan)
    doubt = ddpm.doubts.get("fid") or dcgan.doubts.get("fid")
    verdict: Verdict = "holds" if ours.low <= other.high else "does not hold"
    return Claim(
        config.figure_of_dcgan,
        "the DDPM is about as good as the DCGAN",
        f"FID {ours}",
        f"DCGAN's FID {other}; real images get {least.fid:.3g}; as good: the intervals overlap, or the DDPM's is lower",
        "cannot tell" if doubt else verdict,
        doubt or "a larger budget for both, and several seeds of training",
        {"ddpm": ddpm.row(), "dcgan": dcgan.row(), "floor": least.row()},
    )


def of_dial(config: ReproductionConfig, marks: Sequence[Mark]) -> list[Claim]:
    """Figures 7 and 8."""
    similar, end = (next(mark for mark in marks if mark.start == start) for start in (SIMILAR, UNRELATED))
    copies = "copies of one image, noised to the end once and each denoised,"
    return [
        unrelated(config, 7, f"{copies} are not that image", end.to_input, marks),
        unrelated(config, 7, f"{copies} are unrelated to each other", end.among_siblings, marks),
        _turns(config, marks),
        _resembles(config, similar),
    ]


def _turns(config: ReproductionConfig, marks: Sequence[Mark]) -> Claim:
    """Without the mark at 0, where the distance is 0 for every model."""
    starts = np.array([mark.start for mark in marks[1:]])
    of_each = np.stack([mark.to_input.of_each for mark in marks[1:]])  # (marks, inputs)
    trend = estimate(lambda places: spearman(starts, of_each[:, places].mean(1)), of_each.shape[1], **config.bootstrap)
    least = config.claims.least_correlation
    return Claim(
        8,
        "the start timestep is a dial of similarity",
        f"Spearman's correlation of start and distance to the input {trend}, {len(starts)} starts",
        f"0 without a dial; a dial: at least {least:g}",
        above(trend, least),
        "more inputs at each start",
        {"spearman": trend.row(), "marks": [mark.row() for mark in marks]},
    )


def _resembles(config: ReproductionConfig, mark: Mark) -> Claim:
    """Claim of t = 300: near the image, and not all the same."""
    limits, kept = config.claims, ""
    if mark.same_class is not None:
        kept = f"; {mark.same_class:.0%} keep the class ({mark.same_class_at_random:.0%} of random pairs)"
    return Claim(
        8,
        f"from t = {mark.start} copies resemble the image and differ in detail",
        f"distance to it {mark.to_input.ratio} of random pairs', to each other {mark.among_siblings.ratio}{kept}",
        f"1 for random pairs, 0 for equal images; similar: at most {limits.similar:g}; not the same: at least "
        f"{limits.differing:g} to each other",
        worst(below(mark.to_input.ratio, limits.similar), above(mark.among_siblings.ratio, limits.differing)),
        "more inputs narrow the interval",
        mark.row(),
    )


def of_blends(config: ReproductionConfig, drawings: Drawings) -> list[Claim]:
    """Figure 9: whether the seam of a paste is gone, and whether both parts are still what they were."""
    count = len(drawings.blends)
    images, partners = (torch.from_numpy(drawings.reals[first : first + count]) for first in (0, count))
    blends, pastes = torch.from_numpy(drawings.blends), torch.from_numpy(drawings.pastes)
    masks = torch.from_numpy(drawings.masks).expand(count, -1, -1, -1)
    return [_seam(config, images, partners, pastes, blends, masks), _parts(config, images, partners, blends, masks)]


def _seam(
    config: ReproductionConfig, images: Tensor, partners: Tensor, pastes: Tensor, blends: Tensor, masks: Tensor
) -> Claim:
    ordinary = (steps_across(images, masks) + steps_across(partners, masks)) / 2
    over = functools.partial(_ratio, config)
    before, after = over(steps_across(pastes, masks), ordinary), over(steps_across(blends, masks), ordinary)
    sharpness = over(elsewhere(blends, masks), elsewhere(pastes, masks))
    most, least = 1 + config.claims.seam, 1 - config.claims.seam
    smoothed = worst(below(after, most), above(sharpness, least))
    return Claim(
        9,
        f"denoising from t = {SIMILAR} smooths the seam of a paste, and only the seam",
        f"step across the seam {after} of the ordinary one, {before} before; steps elsewhere {sharpness} of the "
        f"paste's",
        f"ordinary: {float(ordinary.mean()):.3g} grey levels, at the same places of the two images; smooth: at most "
        f"{most:g} of it, with at least {least:g} of the steps elsewhere, which a blur would not leave",
        smoothed if before.low > most else "cannot tell",
        "more pairs narrow the interval" if before.low > most else "pairs whose paste has a seam to begin with",
        {
            "before": before.row(),
            "after": after.row(),
            "elsewhere": sharpness.row(),
            "ordinary": float(ordinary.mean()),
        },
    )


def _parts(config: ReproductionConfig, images: Tensor, partners: Tensor, blends: Tensor, masks: Tensor) -> Claim:
    distances = {"image": part_distances(blends, images, ~masks), "partner": part_distances(blends, partners, masks)}
    further = {name: further_share(found) for name, found in distances.items()}
    shares = {name: _ratio(config, found, torch.ones_like(found)) for name, found in further.items()}
    kept = {name: relation(found.numpy(), **config.bootstrap) for name, found in distances.items()}
    least = config.claims.own_part
    ends = {name: f"{found.own:.3g} grey levels, {found.ratio} of that to others" for name, found in kept.items()}
    return Claim(
        9,
        "and both parts keep their character",
        f"the image's part is nearer to its source than {shares['image']} of the other images are, the partner's than "
        f"{shares['partner']}; it is away from it by {ends['image']}, and by {ends['partner']}",
        f"a share of 0.5 for unrelated parts; kept: at least {least:g} for both",
        worst(*(above(share, least) for share in shares.values())),
        "more pairs narrow the interval; an earlier start keeps more",
        {
            "shares": {name: share.row() for name, share in shares.items()},
            "distances": {name: found.row() for name, found in kept.items()},
        },
    )


def below(found: Estimate, limit: float) -> Verdict:
    """Verdict on a number at most a limit, as far as its interval tells."""
    if found.high <= limit:
        return "holds"
    return "does not hold" if found.low > limit else "cannot tell"


def above(found: Estimate, limit: float) -> Verdict:
    """Verdict on a number at least a limit, as far as its interval tells."""
    if found.low >= limit:
        return "holds"
    return "does not hold" if found.high < limit else "cannot tell"


def worst(*verdicts: Verdict) -> Verdict:
    """Verdict on several things that must all hold."""
    order: tuple[Verdict, ...] = ("does not hold", "cannot tell", "holds")
    return min(verdicts, key=order.index)


def _fid_of(found: Scores) -> Estimate:
    return Estimate(found.fid, *found.intervals["fid"])


def _ratio(config: ReproductionConfig, above_: Tensor, below_: Tensor) -> Estimate:
    """Ratio of the means of two numbers an image."""
    a, b = above_.numpy(), below_.numpy()
    return estimate(lambda places: float(a[places].mean() / max(b[places].mean(), 1e-12)), len(a), **config.bootstrap)
