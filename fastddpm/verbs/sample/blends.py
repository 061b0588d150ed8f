"""`fastddpm cutmix`: blends of pairs of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastddpm import draws
from fastddpm.data.named_pictures import Fitting, NamedImages, read_inputs
from fastddpm.pipelines.cutmix import CutMixPipeline, boxes_of_seeds, masks_of_boxes, to_masks
from fastddpm.verbs.sample.all_processes import run
from fastddpm.verbs.sample.renoised import Renoised, common, file_names
from fastddpm.verbs.sample.request import BlendRequest
from fastddpm.verbs.sample.series import digest


def cutmix(request: BlendRequest) -> Path:
    """Draw blends of images; every process of a launcher calls it.  See `sample` for what holds for both.

    Returns: where they are.
    Raises: ValueError: images, parts or settings that do not fit the model.
    """
    return run(request, CutMixPipeline, partial(_blends, request), figure=request.figure)


@dataclass(frozen=True, kw_only=True)
class Blends(Renoised):
    """Blends of images and partners. With partners of their own, image i has partner i; else each blend has another of
    the images, chosen by its seed."""

    inputs: NamedImages
    partners: NamedImages | None
    box: Sequence[int] | None
    mask: Tensor | None
    """(1, 1, H, W), bool"""
    mask_name: str | None
    alpha: float

    @property
    def heads(self) -> tuple[str, ...]:
        return "image", "partner", "paste", "noised", "blend"

    @property
    def are_alike(self) -> bool:
        return self.partners is not None and (self.box is not None or self.mask is not None)

    def sources_of(self, place: int) -> dict[str, Any]:
        names = (self.partners or self.inputs).names
        return {
            "sources": [self.inputs.names[self.parts(place)[1]], names[self._partner(place)]],
            "box": None if self.mask is not None else self.boxes([place])[0].tolist(),
            "mask": self.mask_name,
            "partner_share": round(float(self.masks([place]).double().mean()), 6),
        }

    def settings_of_sources(self) -> dict[str, Any]:
        return {
            "images": digest(self.inputs.images),
            "partners": None if self.partners is None else digest(self.partners.images),
            "box": None if self.box is None else list(self.box),
            "mask": None if self.mask is None else digest(self.mask.numpy()),
            "alpha": self.alpha if self.box is None and self.mask is None else None,
        }

    def draw_from(self, pipeline: Any, places: Sequence[int], options: dict[str, Any]) -> Tensor:
        images, partners = (torch.from_numpy(np.stack(part)) for part in zip(*map(self._pair, places), strict=True))
        return pipeline(images, partners, masks=self.masks(places), **options).images

    def given(self, place: int) -> list[np.ndarray]:
        image, partner = self._pair(place)
        return [image, partner, np.where(self.masks([place])[0].numpy(), partner, image)]

    def boxes(self, places: Sequence[int]) -> Tensor:
        """(B, 4), int64: given, or drawn by the seeds."""
        if self.box is not None:
            return torch.tensor([list(self.box)] * len(places))
        seeds = torch.tensor([self.seed_of(place) for place in places])
        return boxes_of_seeds(seeds, self.alpha, *self.image_shape[1:])

    def masks(self, places: Sequence[int]) -> Tensor:
        """(B, 1, H, W), bool."""
        if self.mask is not None:
            return self.mask.expand(len(places), -1, -1, -1)
        return masks_of_boxes(self.boxes(places), *self.image_shape[1:])

    def _pair(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        return self.inputs.images[self.parts(place)[1]], (self.partners or self.inputs).images[self._partner(place)]

    def _partner(self, place: int) -> int:
        row = self.parts(place)[1]
        if self.partners is not None:
            return row % len(self.partners.names)
        seed = torch.tensor([self.seed_of(place)])
        key, stream = draws.SAMPLING_KEY, draws.Stream.CHOICE
        further = int(draws.integers(seed, self.num_inputs - 1, seed=key, stream=stream))
        return (row + 1 + further) % self.num_inputs


def _blends(request: BlendRequest, pipeline: CutMixPipeline, precision: str) -> Blends:
    """Raises: ValueError: among others, partners that do not go up."""
    fitting = Fitting.of(request.model, pipeline.image_shape)
    inputs = read_inputs(request.images, fitting)
    partners = read_inputs(request.partners, fitting) if request.partners else None
    count = len(inputs.names)
    if partners is None and count < 2:
        raise ValueError("got one image and no partners; give two images or more, or --partners")
    if partners is not None and len(partners.names) not in (1, count):
        raise ValueError(
            f"got {count} images and {len(partners.names)} partners; give one partner an image, or one for all, or "
            f"leave --partners out: each blend then takes another of the images"
        )
    _, height, width = pipeline.image_shape
    if request.box is not None:
        masks_of_boxes([list(request.box)], height, width)  # refuses one that does not fit
    mask = None if request.mask is None else to_masks(fitting.mask(request.mask), height, width)
    return Blends(
        **common(request, pipeline, precision, count),
        names=file_names(inputs.names),
        inputs=inputs,
        partners=partners,
        box=request.box,
        mask=mask,
        mask_name=None if request.mask is None else request.mask.name,
        alpha=request.alpha,
    )
