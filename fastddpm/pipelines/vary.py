"""Variations of given images: noised to a timestep, denoised.  (the paper's figures 7 and 8)"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from fastddpm.data import to_unit_range
from fastddpm.pipelines.base import UNetPipeline, padded
from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.portable import Callback, Generator, Labels, check_output_type
from fastddpm.pipelines.steps import set_timesteps_from

Images = Image.Image | Sequence[Image.Image] | np.ndarray | Tensor


@dataclass
class VariationOutput(BaseOutput):
    """`images`: the variations, those of the first input first; `noised`: x_t they started from, likewise."""

    images: list[Image.Image] | np.ndarray | Tensor
    noised: list[Image.Image] | np.ndarray | Tensor


class VariationPipeline(UNetPipeline):
    """Draw variations of images; `start_timestep` is the dial from "the same image" to "any image"."""

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        images: Images,
        start_timestep: int = 300,
        num_variations: int = 1,
        generator: Generator = None,
        num_inference_steps: int | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        *,
        class_labels: Labels | None = None,
        guidance_scale: float = 1.0,
        seeds: Sequence[int] | Tensor | None = None,
        micro_batch_size: int | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Draw `num_variations` of each image.

        Args:
            images: PIL images of mode L (one channel) or RGB (three); or (B, C, H, W), uint8, or float in [0, 1].
            start_timestep: denoising steps left to go: 300 noises to index 299; 0 returns the images themselves.
            num_variations: K, an image.
            num_inference_steps: steps really taken, at most `start_timestep`; None: all of them.
            generator, seeds, class_labels: as in `FastDDPMPipeline`, one for each of the B * K results; labels left out
                are the null class.
            guidance_scale, output_type, return_dict, micro_batch_size, callback_on_step_end: as in `FastDDPMPipeline`.
        Returns: a `VariationOutput`, or a tuple of its two members.
        Raises: ValueError: arguments that contradict each other, the model or the size of its images.
        """
        check_output_type(output_type)
        if num_variations < 1:
            raise ValueError(f"num_variations is {num_variations}; ask for at least one of each image")
        x_0 = to_x_0(images, self.image_shape).repeat_interleave(num_variations, dim=0)  # (B * K, C, H, W)
        count = len(x_0)
        noise = NoiseSource.of(count, seeds, generator)
        labels = self.check_labels(class_labels, count)
        if labels is None and self.num_classes is not None:
            labels = self._any_class(count)
        self.set_guidance(guidance_scale, labels)
        report = self.reporter(callback_on_step_end, callback_on_step_end_tensor_inputs)
        noised: list[Tensor] = []
        if start_timestep == 0:
            return self._output(x_0, x_0, output_type, return_dict)

        def choose() -> list[Any]:
            return set_timesteps_from(self.scheduler, start_timestep, num_inference_steps)

        def start(places: slice, part: NoiseSource) -> Tensor:
            rows = x_0[places].to(self._execution_device)
            if part.seeds is not None:
                rows = padded(rows, len(part.seeds))
            t = torch.full((len(rows),), int(choose()[0]), dtype=torch.int64, device=rows.device)
            x_t = self.scheduler.add_noise(rows, part.initial(tuple(rows.shape), rows.device), t)
            noised.append(x_t[: places.stop - places.start])
            return x_t

        result = self.denoise(
            start,
            choose,
            noise,
            count,
            labels=labels,
            micro_batch_size=micro_batch_size,
            report=report,
        )
        return self._output(result, torch.cat(noised), output_type, return_dict)

    def _any_class(self, count: int) -> Tensor:
        if self.null_class is None:
            raise ValueError('the model needs a class for each image and knows none for "any": give class_labels')
        return torch.full((count,), self.null_class, dtype=torch.int64)

    def _output(self, x_0: Tensor, x_t: Tensor, output_type: str | None, return_dict: bool) -> Any:
        images, noised = self.to_output(x_0, output_type), self.to_output(x_t, output_type)
        return VariationOutput(images=images, noised=noised) if return_dict else (images, noised)


def to_x_0(images: Images, image_shape: tuple[int, int, int]) -> Tensor:
    """Images of any accepted kind as x_0: (B, C, H, W), float32, in [-1, 1].

    Raises: ValueError: another mode, dtype, range or size than the model's.
    """
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, np.ndarray | Tensor):
        x_0 = _from_array(torch.as_tensor(images))
    else:
        x_0 = torch.stack([_from_pil(image, image_shape[0]) for image in images])
    if tuple(x_0.shape[1:]) != image_shape:
        raise ValueError(
            f"images are {tuple(x_0.shape[1:])} (channels, height, width); the model makes {image_shape}: resize first"
        )
    return x_0


def _from_pil(image: Image.Image, channels: int) -> Tensor:
    wanted = "L" if channels == 1 else "RGB"
    if image.mode != wanted:
        raise ValueError(f"image has mode {image.mode}; the model takes {wanted}: use image.convert('{wanted}')")
    array = torch.from_numpy(np.array(image))  # (H, W) or (H, W, 3)
    return to_unit_range(array.reshape(*array.shape[:2], channels).permute(2, 0, 1))


def _from_array(array: Tensor) -> Tensor:
    if array.dim() != 4:
        raise ValueError(f"images have shape {tuple(array.shape)}; wanted (B, C, H, W)")
    if array.dtype == torch.uint8:
        return to_unit_range(array)
    if not array.is_floating_point() or not bool(((array >= 0) & (array <= 1)).all()):
        raise ValueError(f"images are {array.dtype} outside of [0, 1]; wanted uint8, or float in [0, 1]")
    return array.float() * 2 - 1
