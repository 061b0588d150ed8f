"""The dial of similarity: how alike an image and its variations are, by start timestep.
(the paper's figures 7 and 8)"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastddpm.config import ReproductionConfig
from fastddpm.evaluation.similarity import Relation, among_siblings, ssim, to_inputs
from fastddpm.reproduction.drawings import Drawings

Features = Callable[[np.ndarray], Tensor]
"""(N, C, H, W) uint8 -> (N, D) float32"""
Classes = Callable[[np.ndarray], Tensor]
"""(N, C, H, W) uint8 -> (N,) int64: the class that a classifier of other images sees"""


@dataclass(frozen=True)
class Mark:
    """The dial at one start timestep."""

    start: int
    to_input: Relation
    """distances in features"""
    among_siblings: Relation
    ssim_to_input: float
    ssim_among_siblings: float
    ssim_at_random: float
    """of inputs and variations of others"""
    same_class: float | None
    """share of variations of the class of their input; None: there is no classifier"""
    same_class_at_random: float | None

    def row(self) -> dict[str, Any]:
        """Plain JSON values."""
        relations = {"to_input": self.to_input.row(), "among_siblings": self.among_siblings.row()}
        return {**asdict(self), **relations}


def dial(config: ReproductionConfig, drawings: Drawings, features: Features, classes: Classes | None) -> list[Mark]:
    """Similarity as a function of the start timestep, from 0 on, where all images are the input."""
    inputs = drawings.reals[: drawings.dial.shape[1]]
    none = np.repeat(inputs[:, None], drawings.dial.shape[2], axis=1)
    of_inputs = features(inputs)
    seen = None if classes is None else classes(inputs)
    starts = (0, *config.measure.start_timesteps)
    everything = (none, *drawings.dial)
    return [
        _mark(config, start, inputs, drawn, of_inputs, features, seen, classes)
        for start, drawn in sorted(zip(starts, everything, strict=True), key=lambda pair: pair[0])
    ]


def _mark(
    config: ReproductionConfig,
    start: int,
    inputs: np.ndarray,
    drawn: np.ndarray,
    of_inputs: Tensor,
    features: Features,
    seen: Tensor | None,
    classes: Classes | None,
) -> Mark:
    count, each = drawn.shape[:2]
    flat = drawn.reshape(-1, *drawn.shape[2:])
    of_drawn = features(flat).unflatten(0, (count, each))
    options = {"resamples": config.measure.resamples, "seed": config.seed}
    same = at_random = None
    if seen is not None and classes is not None:
        agree = (classes(flat).unflatten(0, (count, each))[None] == seen[:, None, None]).double().mean(2)
        same = float(agree.diagonal().mean())
        at_random = float((agree.sum() - agree.trace()) / (count * (count - 1)))
    x_0, x = torch.from_numpy(inputs), torch.from_numpy(drawn)
    return Mark(
        start=start,
        to_input=to_inputs(of_inputs, of_drawn, **options),
        among_siblings=among_siblings(of_drawn, **options),
        ssim_to_input=float(ssim(x_0, x[:, 0]).mean()),
        ssim_among_siblings=float(ssim(x[:, 0], x[:, 1]).mean()),
        ssim_at_random=float(ssim(x_0, x[:, 0].roll(1, 0)).mean()),
        same_class=same,
        same_class_at_random=at_random,
    )
