"""Images that start from images: the common part of `fastddpm vary` and `fastddpm cutmix`."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastddpm import report
from fastddpm.data import to_uint8, to_unit_range
from fastddpm.pipelines.portable import Callback
from fastddpm.pipelines.renoise import RenoisingPipeline
from fastddpm.schedulers.named import name_of
from fastddpm.verbs.sample.request import RenoisingRequest
from fastddpm.verbs.sample.series import Series

MAX_FIGURE_ROWS = 24


@dataclass(frozen=True, kw_only=True)
class Renoised(Series):
    """K images of each input (an image, or a pair) and start timestep; those of a start together, in it those of an
    input. So the images of a micro-batch mostly go through the same steps."""

    starts: Sequence[int]
    steps: Sequence[int]
    """reverse steps of each start"""
    num_inputs: int
    count: int
    """K"""
    shared_noise: bool
    classes: Sequence[int] | None
    """class of each input; None: any"""
    names: Sequence[str]
    """names of the inputs, for files; each once"""
    pipeline: RenoisingPipeline

    def parts(self, place: int) -> tuple[int, int, int]:
        """(which start, which input, which of the K) the image at a place is."""
        rest, k = divmod(place, self.count)
        start, row = divmod(rest, self.num_inputs)
        return start, row, k

    def noise_seed_of(self, place: int) -> int:
        """Seed of the noise that the input gets: the image's own, or that of the first one of its input."""
        return self.seed_of(self.parts(place)[1] * self.count if self.shared_noise else place)

    def row(self, place: int) -> dict[str, Any]:
        start, row, k = self.parts(place)
        between = f"-t{self.starts[start]:04d}" if len(self.starts) > 1 else ""
        return {
            "file_name": f"{self.names[row]}{between}-{k:03d}.png",
            "seed": self.seed_of(place),
            "noise_seed": self.noise_seed_of(place),
            **self.label_in_row(None if self.classes is None else self.classes[row]),
            **self.sources_of(place),
            "start_timestep": self.starts[start],
            "steps": self.steps[start],
            **self.facts,
        }

    def settings(self) -> dict[str, Any]:
        return {
            "start_timesteps": list(self.starts),
            "steps": list(self.steps),
            "images_each": self.count,
            "seed": self.seed,
            "shared_noise": self.shared_noise,
            "classes": None if self.classes is None else list(self.classes),
            "scheduler": self.facts["scheduler"],
            "guidance_scale": self.facts["guidance"],
            **self.settings_of_sources(),
        }

    def draw(self, pipeline: Any, places: Sequence[int], after_step: Callback) -> Tensor:
        found: list[Tensor] = []
        for start in range(len(self.starts)):
            if not (group := [place for place in places if self.parts(place)[0] == start]):
                continue
            null = self.pipeline.null_class
            any_class = None if null is None else [null] * len(group)
            options = {
                "start_timestep": self.starts[start],
                "num_inference_steps": self.steps[start] or None,
                "seeds": [self.seed_of(place) for place in group],
                "noise_seeds": [self.noise_seed_of(place) for place in group],
                "class_labels": any_class if self.classes is None else [self.classes[self.parts(p)[1]] for p in group],
                **self.options(after_step),
            }
            found.append(self.draw_from(pipeline, group, options))
        return torch.cat(found)

    @property
    def num_tiles(self) -> int:
        return len(self._rows_of_figure()) * (len(self.given(0)) + 1 + self._num_alike)

    def save_figure(self, images: np.ndarray, path: Path) -> None:
        """A row of what came in, x_t of the first one, and the images from it; the first `MAX_FIGURE_ROWS` rows."""
        rows: list[tuple[str, np.ndarray]] = []
        for first in self._rows_of_figure():
            given = self.given(first)
            tiles = [*given, self._noised(given[-1], first), *images[first : first + self._num_alike]]
            rows.append((f"t = {self.starts[self.parts(first)[0]]}", np.stack(tiles)))
        scale = report.tile_scale(self.image_shape[2], len(rows[0][1]))
        report.save_labelled_rows(rows, path, scale=scale, heads=self.heads, width=1000)

    @property
    def _num_alike(self) -> int:
        return self.count if self.are_alike else 1

    def _rows_of_figure(self) -> list[int]:
        """The place of the first image of each row."""
        return [
            (start * self.num_inputs + row) * self.count + k
            for row in range(self.num_inputs)
            for start in range(len(self.starts))
            for k in range(0, self.count, self._num_alike)
        ][:MAX_FIGURE_ROWS]

    def _noised(self, image: np.ndarray, place: int) -> np.ndarray:
        start = self.parts(place)[0]
        x_0, seeds = to_unit_range(torch.from_numpy(image[None])), [self.noise_seed_of(place)]
        x_t = self.pipeline.noised(x_0, self.starts[start], self.steps[start], seeds)
        return to_uint8(x_t)[0].cpu().numpy()

    @property
    @abstractmethod
    def heads(self) -> tuple[str, ...]:
        """Names of a figure's columns, to the first of what was made."""

    @property
    @abstractmethod
    def are_alike(self) -> bool:
        """True if the same image is noised for all K."""

    @abstractmethod
    def sources_of(self, place: int) -> dict[str, Any]:
        """Entries of metadata.jsonl that tell what the image at a place came from."""

    @abstractmethod
    def settings_of_sources(self) -> dict[str, Any]:
        """Settings that the sources decide."""

    @abstractmethod
    def draw_from(self, pipeline: Any, places: Sequence[int], options: dict[str, Any]) -> Tensor:
        """The images at places of one start timestep."""

    @abstractmethod
    def given(self, place: int) -> list[np.ndarray]:
        """Images before x_t in a figure: (C, H, W), uint8 each; the last one is what was noised."""


def file_names(names: Sequence[str]) -> list[str]:
    """Names for files: the stems, numbered where two inputs have the same."""
    stems = ["".join(c if c.isalnum() or c in "-_." else "-" for c in PurePath(name).stem) or "image" for name in names]
    return stems if len(set(stems)) == len(stems) else [f"{i:04d}-{stem}" for i, stem in enumerate(stems)]


def common(
    request: RenoisingRequest,
    pipeline: RenoisingPipeline,
    precision: str,
    inputs: int,
    own: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The fields of `Renoised` that follow from a request.

    Args:
        inputs: how many.
        own: classes of the inputs, if the request names none.
    Raises: ValueError: a class, guidance, start or number of steps that the model or its solver does not have.
    """
    starts, count, steps = pipeline.starts_of(request.start_timesteps), request.num_images, request.num_inference_steps
    asked = request.class_label if request.class_label is not None else own
    labels = pipeline.labels_or_any(asked, inputs)
    pipeline.set_guidance(request.guidance_scale, labels)
    pipeline.check_steps(starts, steps)
    classes = None if labels is None else labels.tolist()
    num_images = len(starts) * inputs * count
    request.check_seeds(num_images)
    made_by: dict[str, Any] = {"scheduler": name_of(pipeline.scheduler), "guidance": pipeline.guidance_scale}
    return {
        **Series.common(request, pipeline, precision, num_images, **made_by),
        "starts": starts,
        "steps": [pipeline.steps_from(start) if steps is None else min(steps, start) for start in starts],
        "num_inputs": inputs,
        "count": count,
        "shared_noise": request.shared_noise,
        "classes": None if classes == [pipeline.null_class] * inputs else classes,
        "label_names": pipeline.label_names,
        "pipeline": pipeline,
    }
