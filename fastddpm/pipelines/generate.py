"""New images: noise, denoised.  (the paper's figures 3 and 5)"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ImagePipelineOutput
from torch import Tensor

from fastddpm.pipelines.base import Callback, StepReport, UNetPipeline, to_output
from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.reverse import choose_timesteps
from fastddpm.schedulers.fused_ddpm import Generator


class FastDDPMPipeline(UNetPipeline):
    """Draw images from noise, as `diffusers.DDPMPipeline` does, and image by image from seeds."""

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int | None = None,
        generator: Generator = None,
        num_inference_steps: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        *,
        seeds: Sequence[int] | Tensor | None = None,
        class_labels: Sequence[int] | Tensor | None = None,
        micro_batch_size: int | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("sample",),
    ) -> Any:
        """Draw images.

        Args:
            batch_size: number of images; None: one, or one a seed.
            generator: one, or a list of one an image, as in diffusers.
            num_inference_steps: reverse steps, at most T; None: all T.
            output_type: "pil", "np" ((B, H, W, C) in [0, 1]) or "pt" ((B, C, H, W) in [0, 1]).
            return_dict: an `ImagePipelineOutput`, or a tuple of the images.
            seeds: one integer an image: its noise is bit-equal in any batch, its pixels at one `micro_batch_size`.
            class_labels: one an image, for a class-conditional model. None: each class in turn, by the image's seed
                (or place) modulo the number of classes; `num_classes` itself is the null class: any.
            micro_batch_size: images of one forward pass; None: all.
            callback_on_step_end: called as (pipeline, step, timestep, {"sample": x_t}); may return another "sample".
        Returns: an `ImagePipelineOutput` whose `images` are in the format asked for, or a tuple of them.
        Raises: ValueError: arguments that contradict each other or the model.
        """
        count = batch_size if batch_size is not None else len(seeds) if seeds is not None else 1
        if count < 1:
            raise ValueError(f"batch_size is {count}; ask for at least one image")
        noise = NoiseSource.of(count, seeds, generator)

        def start(places: slice, part: NoiseSource) -> Tensor:
            drawn = len(part.seeds) if part.seeds is not None else places.stop - places.start
            return part.initial((drawn, *self.image_shape), self._execution_device)

        def choose() -> list[Any]:
            return choose_timesteps(self.scheduler, None, num_inference_steps)

        x_0 = self.denoise(
            start,
            choose,
            noise,
            count,
            labels=self.check_labels(self._each_class(count, noise) if class_labels is None else class_labels, count),
            micro_batch_size=micro_batch_size,
            report=StepReport(callback_on_step_end, callback_on_step_end_tensor_inputs),
        )
        images = to_output(x_0, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _each_class(self, count: int, noise: NoiseSource) -> Tensor | None:
        if self.num_classes is None:
            return None
        return (torch.arange(count) if noise.seeds is None else noise.seeds) % self.num_classes
