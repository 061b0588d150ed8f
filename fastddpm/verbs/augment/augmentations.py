"""The images of a plan, as the drawing machinery takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastddpm.data import to_unit_range
from fastddpm.data.named_pictures import LabelledImages
from fastddpm.pipelines.cutmix import masks_of_boxes
from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.portable import Callback, in_format
from fastddpm.verbs.augment.filters import Filters
from fastddpm.verbs.augment.plan import Plan
from fastddpm.verbs.augment.request import AugmentRequest
from fastddpm.verbs.sample.series import Series, digest


@dataclass(frozen=True, kw_only=True, eq=False)
class Augmentations(Series):
    """Variations, blends or samples; `seed_of` and the order are the plan's."""

    request: AugmentRequest
    plan: Plan
    data: LabelledImages
    folders: tuple[str, ...]
    """name of each label's class folder"""
    classes: np.ndarray | None
    """(L,), int64: the model's class for each label; None: images are drawn for any class"""
    steps: Mapping[int | None, int]
    """reverse steps of each start timestep; of samples, which have none"""
    filters: Filters
    compared: dict[str, Any]
    """facts for the record: which images there were, and what new ones are compared with"""

    def seed_of(self, place: int) -> int:
        return int(self.plan.seeds[place])

    def source_images(self, place: int) -> list[int]:
        """Images of the data it is made from: none, one, or for a blend the image and its partner."""
        if self.request.mode == "samples":
            return []
        partners = [] if self.plan.partners is None else [int(self.plan.partners[place])]
        return [int(self.plan.sources[place]), *partners]

    def soft_label(self, place: int) -> dict[int, float]:
        """The share of the area that each label has; the one of the larger part first."""
        labels = self.data.labels
        first = int(labels[self.plan.sources[place]])
        if self.plan.partners is None or self.plan.boxes is None:
            return {first: 1.0}
        second, box = int(labels[self.plan.partners[place]]), self.plan.boxes[place]
        share = float(box[2] * box[3]) / (self.image_shape[1] * self.image_shape[2])
        if first == second or share == 0:
            return {first: 1.0}
        shares = {first: 1 - share, second: share} if share <= 0.5 else {second: share, first: 1 - share}
        return {label: value for label, value in shares.items() if value}

    def label_of(self, place: int) -> int:
        """Label of the larger part."""
        return next(iter(self.soft_label(place)))

    def row(self, place: int) -> dict[str, Any]:
        label, seed = self.label_of(place), self.seed_of(place)
        blend: dict[str, Any] = {}
        if self.plan.boxes is not None:
            shares = self.soft_label(place)
            soft = [round(shares.get(i, 0.0), 6) for i in range(len(self.data.label_names))]
            blend = {"soft_label": soft, "box": self.plan.boxes[place].tolist()}
        return {
            "file_name": f"{self.folders[label]}/{seed:06d}.png",
            "seed": seed,
            "label": label,
            "label_name": self.data.label_names[label],
            **blend,
            "sources": [self.data.names[image] for image in self.source_images(place)],
            "start_timestep": None if self.plan.starts is None else int(self.plan.starts[place]),
            "steps": self.steps[None if self.plan.starts is None else int(self.plan.starts[place])],
            **self.facts,
        }

    def settings(self) -> dict[str, Any]:
        request = self.request
        asked = request.start_timesteps
        is_blend, is_sample = request.mode == "cutmix", request.mode == "samples"
        return {
            "mode": request.mode,
            "images": digest(self.data.images),
            "labels": digest(self.data.labels),
            "label_names": list(self.data.label_names),
            "names": digest(np.frombuffer("\n".join(self.data.names).encode(), dtype=np.uint8)),
            "num_images": request.num_images,
            "balance": request.balance,
            "seed": request.seed,
            "start_timesteps": None if is_sample else asked if isinstance(asked, str) else list(asked),
            "alpha": request.alpha if is_blend else None,
            "any_class": self.classes is None,
            "scheduler": self.facts["scheduler"],
            "steps": None if isinstance(request.starts, range) else list(self.steps.values()),
            "guidance_scale": self.facts["guidance"],
            **self.filters.settings(),
        }

    def draw(self, pipeline: Any, places: Sequence[int], after_step: Callback) -> Tensor:
        seeds = [self.seed_of(place) for place in places]
        labels = None
        if self.classes is not None:
            labels = [int(self.classes[self.data.labels[self.plan.sources[place]]]) for place in places]
        if self.plan.starts is None:
            return pipeline(
                seeds=seeds, class_labels=labels, num_inference_steps=self.steps[None], **self.options(after_step)
            ).images
        return self._renoised(pipeline, places, seeds, labels, after_step)

    @torch.no_grad()
    def _renoised(
        self, pipeline: Any, places: Sequence[int], seeds: list[int], labels: list[int] | None, after_step: Callback
    ) -> Tensor:
        assert self.plan.starts is not None
        starts = self.plan.starts[list(places)].tolist()
        x_0 = to_unit_range(torch.from_numpy(np.stack([self.given(place)[-1] for place in places])))
        given = pipeline.labels_or_any(labels, len(seeds))
        pipeline.set_guidance(self.facts["guidance"], given)
        noise = NoiseSource.of(len(seeds), seeds, None)
        options = {
            "labels": given,
            "micro_batch_size": self.micro_batch_size,
            "report": pipeline.reporter(after_step, ()),
        }
        if isinstance(self.request.starts, range):
            drawn = pipeline.renoise_each(x_0, starts, noise, **options)
        else:
            drawn, _ = pipeline.renoise(x_0, starts, self.request.num_inference_steps, noise, None, **options)
        return in_format(drawn, "pt")

    def given(self, place: int) -> list[np.ndarray]:
        """Images that an image is made from, (C, H, W), uint8 each; the last one is what is noised. Empty for a
        sample."""
        images = [self.data.images[image] for image in self.source_images(place)]
        if self.plan.boxes is None:
            return images
        inside = masks_of_boxes(torch.from_numpy(self.plan.boxes[[place]]), *self.image_shape[1:])[0].numpy()
        return [*images, np.where(inside, images[1], images[0])]


def folder_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of class folders: the labels', with their numbers where files and readers would take them for others."""
    plain = ["".join(c if c.isalnum() or c in "-_. " else "-" for c in name).strip(" .") for name in names]
    taken = {"train", "valid", "val", "validation", "test", "dev", ""}
    is_safe = len({name.lower() for name in plain}) == len(plain) and not taken & {name.lower() for name in plain}
    return tuple(plain) if is_safe else tuple(f"{i:04d}-{name}" for i, name in enumerate(plain))
