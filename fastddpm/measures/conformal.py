"""Certainty of scores: p-values from normal images, and conclusions from them.

A fresh normal image and the held-out ones are exchangeable: its place among their scores is anyone's. So at most a
share of p of fresh normal images has a p-value of p or less, whatever the score and however few the images
(Vovk et al. 2005, "Algorithmic Learning in a Random World"). Of images that belong together only the highest score
counts. In this file scores are numbers of (N,), higher is less normal, and groups (G,) are such highest ones.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

Floats = NDArray[np.float64]
MAX_FALSE_CHANGES = 0.01
"""probability, at most, that "normal has changed" is said of an endless row of normal images"""
_POWERS = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
"""exponents of the bets on small p-values"""
_WAKING = 1e-3
"""share of the capital not yet at stake that begins to bet with each image: a change may come at any"""


def num_allowed(false_alarms: float, num_groups: int) -> int:
    """Number of groups, k, whose least score is the threshold; only higher ones are flagged.

    Raises: ValueError: a share that is none, or less than so few groups can promise.
    """
    if not 0 < false_alarms < 1:
        raise ValueError(f"false_alarms is {false_alarms}; it is a share of normal images, between 0 and 1")
    allowed = math.floor(false_alarms * (num_groups + 1) + 1e-9)
    if allowed < 1:
        raise ValueError(
            f"false_alarms is {false_alarms}, and {num_groups} normal images that are no near-copies promise "
            f"{1 / (num_groups + 1):.2g} at least; it takes {math.ceil(1 / false_alarms - 1e-9) - 1}: give more normal "
            "images, or allow more false alarms"
        )
    return allowed


def threshold(groups: Floats, false_alarms: float) -> float:
    """The score that at most a share of `false_alarms` of fresh normal images passes.  Raises: as `num_allowed`."""
    return float(np.sort(groups)[-num_allowed(false_alarms, len(groups))])


def band(false_alarms: float, num_groups: int) -> tuple[float, float]:
    """95 % interval of the share of all fresh normal images that one such threshold flags: a beta distribution, of
    which the mean is at most `false_alarms`.  (Vovk 2012, "Conditional validity of inductive conformal predictors")"""
    allowed = num_allowed(false_alarms, num_groups)
    low, high = beta.ppf([0.025, 0.975], allowed, num_groups + 1 - allowed)
    return float(low), float(high)


def p_values(scores: Floats, groups: Floats) -> Floats:
    """(1 + number of groups with at least this score) / (G + 1)."""
    higher = len(groups) - np.searchsorted(np.sort(groups), scores, side="left")
    return (1 + higher) / (len(groups) + 1)


def q_values(p: Floats) -> Floats:
    """Least false discovery rate at which each p-value is a discovery among all of them.  (Benjamini & Hochberg 1995;
    valid for p-values of this kind: Bates et al. 2023)"""
    order = np.argsort(-p)
    found = np.empty(len(p))
    found[order] = np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1))
    return found.clip(max=1)


@dataclass(frozen=True)
class Drift:
    """Change of normal in a row of images."""

    evidence: float
    """highest capital of a gambler who begins with 1 and bets that images are less normal than those before"""
    changed_by: int | None
    """place of the image at which it passes 1 / `MAX_FALSE_CHANGES`; None: it does not"""
    changed_from: int | None
    """most likely place of the first such image; None: none is found"""


def drift(scores: Floats, groups: Floats, seed: int = 0) -> Drift:
    """Bet against exchangeability, image by image.  (Vovk et al. 2003, "Testing exchangeability on-line")

    Each image is ranked among the normal ones and all before it, ties in random order, which makes the ranks of
    exchangeable images independent and even; a capital that bets on small ones then grows a hundredfold in one row of a
    hundred, at most (Ville's inequality).
    """
    rng = np.random.default_rng(seed)
    seen, asleep, awake = np.sort(groups), 1.0, np.zeros(len(_POWERS))
    gains, capital = np.zeros(len(scores)), np.zeros(len(scores))
    for place, score in enumerate(scores):
        low, high = np.searchsorted(seen, score, "left"), np.searchsorted(seen, score, "right")
        p = (len(seen) - high + (1 - rng.random()) * (high - low + 1)) / (len(seen) + 1)
        bets = _POWERS * p ** (_POWERS - 1)
        awake = (awake + asleep * _WAKING / len(_POWERS)) * bets
        asleep *= 1 - _WAKING
        gains[place], capital[place] = math.log(bets.mean()), asleep + awake.sum()
        seen = np.insert(seen, low, score)
    changed = np.flatnonzero(capital >= 1 / MAX_FALSE_CHANGES)
    if not len(changed):
        return Drift(float(capital.max(initial=1)), None, None)
    before = np.concatenate([[0.0], np.cumsum(gains[: changed[0]])])
    return Drift(float(capital.max()), int(changed[0]), int(before.argmin()))
