"""`fastddpm vary`: variations of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from fastddpm.data import to_unit_range
from fastddpm.data.named_pictures import Fitting, NamedImages, read_inputs
from fastddpm.pipelines.vary import VariationPipeline
from fastddpm.verbs.sample.all_processes import run
from fastddpm.verbs.sample.renoised import Renoised, common, file_names
from fastddpm.verbs.sample.request import VariationRequest
from fastddpm.verbs.sample.series import digest


def vary(request: VariationRequest) -> Path:
    """Draw variations of images; every process of a launcher calls it.  See `sample` for what holds for both.

    Returns: where they are.
    Raises: ValueError: images, or settings, that do not fit the model.
    """
    return run(request, VariationPipeline, partial(_variations, request), figure=request.figure)


@dataclass(frozen=True, kw_only=True)
class Variations(Renoised):
    """Variations of images."""

    inputs: NamedImages

    @property
    def heads(self) -> tuple[str, ...]:
        return "image", "noised", "variations"

    @property
    def are_alike(self) -> bool:
        return True

    def sources_of(self, place: int) -> dict[str, Any]:
        return {"variation_of": self.inputs.names[self.parts(place)[1]]}

    def settings_of_sources(self) -> dict[str, Any]:
        return {"images": digest(self.inputs.images)}

    def draw_from(self, pipeline: Any, places: Sequence[int], options: dict[str, Any]) -> Tensor:
        rows = [self.parts(place)[1] for place in places]
        return pipeline(torch.from_numpy(self.inputs.images[rows]), **options).images

    def given(self, place: int) -> list[np.ndarray]:
        return [self.inputs.images[self.parts(place)[1]]]


def _variations(request: VariationRequest, pipeline: VariationPipeline, precision: str) -> Variations:
    inputs = read_inputs(request.images, Fitting.of(request.model, pipeline.image_shape))
    own = None if request.class_label is not None else _classes_of(inputs, pipeline)
    fields = common(request, pipeline, precision, len(inputs.names), own)
    return Variations(**fields, names=file_names(inputs.names), inputs=inputs)


def _classes_of(inputs: NamedImages, pipeline: VariationPipeline) -> list[int] | None:
    """The class of each picture: known by name, where its source has labels, else told by the model."""
    if pipeline.num_classes is None:
        return None
    known = pipeline.label_names or ()
    if inputs.labels is not None and set(inputs.label_names or ("",)) <= set(known):
        return [known.index((inputs.label_names or ())[label]) for label in inputs.labels]
    pipeline.to(PartialState().device)
    return pipeline.told_classes(to_unit_range(torch.from_numpy(inputs.images))).tolist()
