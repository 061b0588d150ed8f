"""`fastddpm sample`: new images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastddpm.config import check_steps
from fastddpm.config.early_checks import check_model
from fastddpm.config.runs import find_run
from fastddpm.pipelines.dcgan import DCGANPipeline
from fastddpm.pipelines.generate import FastDDPMPipeline
from fastddpm.pipelines.portable import Callback
from fastddpm.schedulers.named import name_of
from fastddpm.verbs.sample.all_processes import Check, run
from fastddpm.verbs.sample.request import SampleRequest
from fastddpm.verbs.sample.series import Series


def sample(request: SampleRequest, mix: Mapping[str, int] | None = None, check: Check | None = None) -> Path:
    """Draw images; every process of a launcher calls it. What an earlier one left unfinished is gone on with.

    Micro-batches are dealt to the processes in turn and every random number is keyed, so that the files hold the same
    bytes whatever the number of processes, at one `micro_batch_size` (and on CPUs at one number of threads).

    Args:
        mix: how often each class is wanted, by name, beside the others; None, or classes that the model does not know:
            each in turn.
        check: may refuse the images' (C, H, W) before any is drawn.
    Returns: where they are.
    Raises: ValueError: settings that do not fit the model, the processes, or what lies at `request.out`.
    """
    found = find_run(request.model)
    check_model("sample", found, vars(request))
    if found.kind == "dcgan":
        return run(request, DCGANPipeline, partial(_generated, request), figure=request.figure, check=check)
    return run(request, FastDDPMPipeline, partial(_samples, request, mix), figure=request.figure, check=check)


@dataclass(frozen=True, kw_only=True)
class Samples(Series):
    """New images, each of a class of its own if the model knows any."""

    num_classes: int | None
    class_label: int | None
    labels: tuple[int, ...] | None
    """class of each image, where a mix of classes is asked for"""

    def label_of(self, place: int) -> int | None:
        """The class asked for, that of the mix, or each in turn by seed, as in `FastDDPMPipeline`; None: no class."""
        if self.labels is not None:
            return self.labels[place]
        if self.class_label is not None or self.num_classes is None:
            return self.class_label
        return self.seed_of(place) % self.num_classes

    def row(self, place: int) -> dict[str, Any]:
        seed = self.seed_of(place)
        return {"file_name": f"{seed:06d}.png", "seed": seed, **self.label_in_row(self.label_of(place)), **self.facts}

    def settings(self) -> dict[str, Any]:
        return {
            "num_images": self.num_images,
            "seed": self.seed,
            "class_label": self.class_label,
            "scheduler": self.facts["scheduler"],
            "num_inference_steps": self.facts["steps"],
            "guidance_scale": self.facts["guidance"],
            **({} if self.labels is None else {"classes": np.bincount(self.labels).tolist()}),
        }

    def draw(self, pipeline: Any, places: Sequence[int], after_step: Callback) -> Tensor:
        labels = [label for place in places if (label := self.label_of(place)) is not None]
        return pipeline(
            seeds=[self.seed_of(place) for place in places], class_labels=labels or None,
            num_inference_steps=self.facts["steps"], **self.options(after_step),
        ).images  # fmt: skip


def _mixed(mix: Mapping[str, int] | None, pipeline: FastDDPMPipeline, count: int) -> tuple[int, ...] | None:
    """The classes of `count` images in a mix, each as often as in it up to one; None: no mix of the model's classes."""
    names = pipeline.label_names or tuple(map(str, range(pipeline.num_classes or 0)))
    if mix is None or not set(mix) <= set(names):
        return None
    ends = np.cumsum([mix.get(name, 0) for name in names])
    each = np.diff(np.rint(ends * count / ends[-1]).astype(int), prepend=0)
    return tuple(np.repeat(np.arange(len(names)), each).tolist())


def _samples(
    request: SampleRequest, mix: Mapping[str, int] | None, pipeline: FastDDPMPipeline, precision: str
) -> Samples:
    """Raises: ValueError: a class or a guidance that the model does not have, or steps that its solver has not."""
    num_train, solver = pipeline.scheduler.config.num_train_timesteps, name_of(pipeline.scheduler)
    steps = pipeline.default_steps if request.num_inference_steps is None else request.num_inference_steps
    check_steps(request.scheduler, num_train, steps, "num_inference_steps")
    labels = pipeline.labels_or_each_class(request.class_label, 1, seeds=torch.zeros(1, dtype=torch.int64))
    pipeline.set_guidance(request.guidance_scale, labels)
    pipeline.set_timesteps(steps, None)
    made_by: dict[str, Any] = {"scheduler": solver, "steps": steps, "guidance": pipeline.guidance_scale}
    return Samples(
        **Samples.common(request, pipeline, precision, **made_by),
        num_classes=pipeline.num_classes,
        class_label=None if request.class_label is None or labels is None else int(labels),
        label_names=pipeline.label_names,
        labels=_mixed(mix, pipeline, request.num_images),
    )


@dataclass(frozen=True, kw_only=True)
class Generated(Series):
    """New images of a DCGAN: one forward pass each, no classes."""

    def row(self, place: int) -> dict[str, Any]:
        seed = self.seed_of(place)
        return {"file_name": f"{seed:06d}.png", "seed": seed, "label": None, **self.facts}

    def settings(self) -> dict[str, Any]:
        return {"num_images": self.num_images, "seed": self.seed}

    def draw(self, pipeline: Any, places: Sequence[int], after_step: Callback) -> Tensor:
        seeds = [self.seed_of(place) for place in places]
        return pipeline(seeds=seeds, micro_batch_size=self.micro_batch_size, output_type="pt").images


def _generated(request: SampleRequest, pipeline: DCGANPipeline, precision: str) -> Generated:
    return Generated(**Generated.common(request, pipeline, precision, generator="DCGAN"))
