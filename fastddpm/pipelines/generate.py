"""New images: noise, denoised.  (the paper's figures 3 and 5)"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastddpm.pipelines.base import UNetPipeline, padded
from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.portable import (
    Callback,
    Generator,
    Labels,
    check_output_type,
    check_scheduler,
    image_count,
    in_format,
)
from fastddpm.pipelines.shown import SampleOutput


class FastDDPMPipeline(UNetPipeline):
    """Draw images from noise, as `diffusers.DDPMPipeline` does, by class, and image by image from seeds."""

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        batch_size: int | None = None,
        generator: Generator = None,
        num_inference_steps: int | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        *,
        timesteps: Sequence[int] | None = None,
        latents: Tensor | None = None,
        class_labels: Labels | None = None,
        guidance_scale: float | None = None,
        eta: float | None = None,
        seeds: Sequence[int] | Tensor | None = None,
        micro_batch_size: int | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Draw images.

        Args:
            batch_size: number of images; None: one, or one a seed, label or row of `latents`.
            generator: one, or a list of one an image, as in diffusers.
            num_inference_steps: reverse steps, at most T; None: the run's own, see `default_steps`.
            output_type: "pil", "np" ((B, H, W, C) in [0, 1]), "pt" ((B, C, H, W) in [0, 1]) or "latent" (x_0 itself).
            timesteps: the descending timesteps to visit, instead of `num_inference_steps`.
            latents: the noise to start from, (B, C, H, W); None: drawn.
            class_labels: numbers or names, one an image or one for all; "none": any class. None: by the image's seed
                modulo the number of classes; without seeds all alike, in an order that the generator draws first.
            guidance_scale: 1: none; above: further from any class (Ho & Salimans 2022, Eq. 6); None: the run's own.
            eta: noise of each step of DDIM, from 0, none, to 1, DDPM's (Song et al. 2021, Eq. 16); None: 0.
            seeds: one integer an image: its noise is bit-equal in any batch, its pixels at one `micro_batch_size`.
            micro_batch_size: images of one forward pass; None: all.
            callback_on_step_end: called as (pipeline, step, timestep, {"latents": x_t}); may return other "latents".
        Returns: an `ImagePipelineOutput`, `images` in the format asked for, or a tuple; notebooks show it as a picture.
        Raises: ValueError: arguments that contradict each other or the model.
        """
        check_output_type(output_type)
        check_scheduler(self.scheduler)
        count = image_count(batch_size, seeds, class_labels, latents)
        noise = NoiseSource.of(count, seeds, generator)
        labels = self.labels_or_each_class(class_labels, count, generator, noise.seeds)
        self.set_guidance(guidance_scale, labels)
        if latents is not None:
            self.start(latents, (count, *self.image_shape))  # refuses another shape before anything is done

        def start(places: slice, part: NoiseSource) -> Tensor:
            drawn = len(part.seeds) if part.seeds is not None else places.stop - places.start
            wanted = (drawn, *self.image_shape)
            own = None if latents is None else padded(latents[places], drawn)
            return self.start(part.initial(wanted, self._execution_device) if own is None else own, wanted)

        x_0 = self.denoise(
            start, lambda: self.set_timesteps(num_inference_steps, timesteps), noise, count, labels=labels,
            micro_batch_size=micro_batch_size, eta=eta,
            report=self.reporter(callback_on_step_end, callback_on_step_end_tensor_inputs),
        )  # fmt: skip
        made = SampleOutput(images=in_format(x_0, output_type))
        return made if return_dict else made.to_tuple()
