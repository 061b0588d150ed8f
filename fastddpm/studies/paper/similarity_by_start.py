"""The dial of similarity: how alike an image and its variations are, by start timestep.
(the paper's figures 7 and 8)"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastddpm.measures.similarity import Relation, among_siblings, ssim, to_inputs
from fastddpm.studies.paper.drawings import Drawings, Seen
from fastddpm.studies.paper.settings import ReproductionConfig


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
    """SSIM of inputs and variations of others"""
    same_class: float | None
    """share of variations of the class of their input; None: there is no classifier"""
    same_class_at_random: float | None

    def row(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: value.row() if isinstance(value, Relation) else value for name, value in vars(self).items()}


def dial(config: ReproductionConfig, drawings: Drawings, seen: Seen) -> list[Mark]:
    """Similarity as a function of the start timestep, from 0 on, where all images are the input."""
    count, each = drawings.dial.shape[1:3]
    inputs, of_inputs, classes = drawings.reals[:count], seen.reals[:count], seen.classes_of_inputs
    copies = None if classes is None else classes[:, None].repeat(1, each)
    drawn = {0: (np.repeat(inputs[:, None], each, axis=1), of_inputs[:, None].repeat(1, each, 1), copies)}
    for place, start in enumerate(config.measure.start_timesteps):
        found = None if seen.classes_of_dial is None else seen.classes_of_dial[place]
        drawn[start] = drawings.dial[place], seen.dial[place], found
    return [_mark(config, start, inputs, of_inputs, classes, *drawn[start]) for start in sorted(drawn)]


def _mark(
    config: ReproductionConfig, start: int, inputs: np.ndarray, of_inputs: Tensor, classes: Tensor | None,
    drawn: np.ndarray, of_drawn: Tensor, classes_of_drawn: Tensor | None,
) -> Mark:  # fmt: skip
    same = at_random = None
    if classes is not None and classes_of_drawn is not None:
        count = len(classes)
        agree = (classes_of_drawn[None] == classes[:, None, None]).double().mean(2)
        same = float(agree.diagonal().mean())
        at_random = float((agree.sum() - agree.trace()) / (count * (count - 1)))
    x_0, x = torch.from_numpy(inputs), torch.from_numpy(drawn)
    pairs = (x_0, x[:, 0]), (x[:, 0], x[:, 1]), (x_0, x[:, 0].roll(1, 0))
    to_input, to_siblings = (
        to_inputs(of_inputs, of_drawn, **config.bootstrap),
        among_siblings(of_drawn, **config.bootstrap),
    )
    alike = [float(ssim(a, b).mean()) for a, b in pairs]
    return Mark(start, to_input, to_siblings, alike[0], alike[1], alike[2], same, at_random)
