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
    inputs = drawings.reals[:count]
    of_inputs = seen.reals[:count]
    none = _mark(
        config, 0, inputs, np.repeat(inputs[:, None], each, axis=1), of_inputs, of_inputs[:, None].repeat(1, each, 1),
        seen.classes_of_inputs,
        None if seen.classes_of_inputs is None else seen.classes_of_inputs[:, None].repeat(1, each),
    )  # fmt: skip
    marks = [
        _mark(
            config, start, inputs, drawings.dial[place], of_inputs, seen.dial[place], seen.classes_of_inputs,
            None if seen.classes_of_dial is None else seen.classes_of_dial[place],
        )
        for place, start in enumerate(config.measure.start_timesteps)
    ]  # fmt: skip
    return [none, *sorted(marks, key=lambda mark: mark.start)]


def _mark(
    config: ReproductionConfig,
    start: int,
    inputs: np.ndarray,
    drawn: np.ndarray,
    of_inputs: Tensor,
    of_drawn: Tensor,
    classes: Tensor | None,
    classes_of_drawn: Tensor | None,
) -> Mark:
    same = at_random = None
    if classes is not None and classes_of_drawn is not None:
        count = len(classes)
        agree = (classes_of_drawn[None] == classes[:, None, None]).double().mean(2)
        same = float(agree.diagonal().mean())
        at_random = float((agree.sum() - agree.trace()) / (count * (count - 1)))
    x_0, x = torch.from_numpy(inputs), torch.from_numpy(drawn)
    options = {"resamples": config.measure.resamples, "seed": config.seed}
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
