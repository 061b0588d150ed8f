"""Variations of given images: noised to a timestep, denoised.  (the paper's figures 7 and 8)"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.portable import Callback, Generator, Labels, check_output_type, in_format
from fastddpm.pipelines.renoise import Images, RenoisingPipeline, Starts, seeds_of_noise, to_x_0
from fastddpm.pipelines.shown import Shown


@dataclass
class VariationOutput(BaseOutput, Shown):
    """`images`: the variations, those of the first input first; `noised`: x_t they started from, likewise."""

    images: list[Image.Image] | np.ndarray | Tensor
    noised: list[Image.Image] | np.ndarray | Tensor


class VariationPipeline(RenoisingPipeline):
    """Draw variations of images; `start_timestep` is the dial from "the same image" to "any image"."""

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        images: Images,
        start_timestep: Starts = 300,
        num_variations: int = 1,
        generator: Generator = None,
        num_inference_steps: int | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        *,
        class_labels: Labels | None = None,
        guidance_scale: float | None = None,
        seeds: Sequence[int] | Tensor | None = None,
        noise_seeds: Sequence[int] | Tensor | None = None,
        micro_batch_size: int | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Draw `num_variations` of each image.

        The B * S * K results of B images, S start timesteps and K variations stand in this order: those of an image
        together, among them those of a start timestep.

        Args:
            images: PIL images of mode L (one channel) or RGB (three); or (B, C, H, W), uint8, or float in [0, 1].
            start_timestep: denoising steps left to go, one number or S of them: 300 noises to index 299; 0 returns the
                images themselves.
            num_variations: K, an image and start timestep.
            num_inference_steps: at most each start timestep; None: the run's own that are left, see `steps_from`.
            generator, seeds: as in `FastDDPMPipeline`, one a result, which its seeds make again on its own.
            class_labels: as there, one a result or one for all; None: each image's own, see `told_classes`.
            noise_seeds: of the noise that an image gets: one a result, or one an image, which is then noised once for
                all its variations, as in the paper. None: the result's seed (or the generator).
            guidance_scale, output_type, return_dict, micro_batch_size, callback_on_step_end: as in `FastDDPMPipeline`.
        Returns: a `VariationOutput`, or a tuple of its two members.
        Raises: ValueError: arguments that contradict each other, the model or the size of its images.
        """
        check_output_type(output_type)
        if num_variations < 1:
            raise ValueError(f"num_variations is {num_variations}; ask for at least one of each image")
        starts, inputs = self.starts_of(start_timestep), to_x_0(images, self.image_shape)
        each = len(starts) * num_variations
        count = len(inputs) * each
        noise = NoiseSource.of(count, seeds, generator)
        if class_labels is None and self.num_classes is not None:
            class_labels = self.told_classes(inputs).repeat_interleave(each)
        labels = self.check_labels(class_labels, count)
        self.set_guidance(guidance_scale, labels)
        x_0, x_t = self.renoise(
            inputs.repeat_interleave(each, dim=0),
            [start for _ in inputs for start in starts for _ in range(num_variations)],
            num_inference_steps,
            noise,
            seeds_of_noise(noise_seeds, len(inputs), count),
            labels=labels,
            micro_batch_size=micro_batch_size,
            report=self.reporter(callback_on_step_end, callback_on_step_end_tensor_inputs),
        )
        drawn, noised = in_format(x_0, output_type), in_format(x_t, output_type)
        return VariationOutput(images=drawn, noised=noised) if return_dict else (drawn, noised)
