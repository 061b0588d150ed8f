"""Images noised to a timestep and denoised from there: what variations and blends have in common."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastddpm.config.checks import check_starts
from fastddpm.data import to_unit_range
from fastddpm.pipelines.base import UNetPipeline, padded
from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.portable import Labels, OnStep, on_the_host
from fastddpm.pipelines.steps import nearest_steps, set_timesteps_from
from fastddpm.schedulers.fused_ddpm import FusedDDPMScheduler

Images = Image.Image | Sequence[Image.Image] | np.ndarray | Tensor
Starts = int | Sequence[int]
TOLD_AT = (0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7)
"""shares of T where an image is noised to tell its class"""


class RenoisingPipeline(UNetPipeline):
    """Base of the pipelines that start from images."""

    def renoise(
        self,
        x_0: Tensor,
        starts: Sequence[int],
        num_inference_steps: int | None,
        noise: NoiseSource,
        noise_seeds: Tensor | None,
        *,
        labels: Tensor | None,
        micro_batch_size: int | None,
        report: OnStep,
    ) -> tuple[Tensor, Tensor]:
        """Noise each image to its own start and denoise it.

        Args:
            x_0: (N, C, H, W), float32, in [-1, 1].
            starts: N numbers of denoising steps left to go: 300 noises to index 299, 0 leaves the image as it is.
            num_inference_steps: steps really taken; None: `steps_from` the start.
            noise: of all images.
            noise_seeds: (N,), int64, of the noise that x_0 gets; None: what `noise` gives.
            labels, micro_batch_size, report: see `denoise`.
        Returns: x_0 and x_t, (N, C, H, W), float32, on the device of the network.
        """
        device = self._execution_device
        results, noised = x_0.to(device, copy=True), x_0.to(device, copy=True)  # x_0 is the caller's
        for start in sorted(set(starts) - {0}):
            rows = torch.tensor([i for i, other in enumerate(starts) if other == start])
            of_rows = None if noise_seeds is None else NoiseSource(noise_seeds[rows], None)
            x_t, x_0_t = self._renoise_from(
                x_0[rows], start, num_inference_steps, noise.take(rows), of_rows,
                labels=None if labels is None else labels[rows], micro_batch_size=micro_batch_size, report=report,
            )  # fmt: skip
            results[rows.to(device)], noised[rows.to(device)] = x_0_t, x_t
        return results, noised

    def renoise_each(
        self,
        x_0: Tensor,
        starts: Sequence[int],
        noise: NoiseSource,
        *,
        labels: Tensor | None,
        micro_batch_size: int | None,
        report: OnStep,
    ) -> Tensor:
        """Noise each image to its own start and denoise it, all in one pass: an image waits, noised, until the chain
        has come down to its start. With seeds it becomes what `renoise` makes of it; where most starts differ, in a
        fraction of the passes.

        Args: as of `renoise`; each start at least 1.
        Returns: x_0, (N, C, H, W), float32, on the device of the network.
        Raises: ValueError: another scheduler than the paper's, which may keep something of earlier steps.
        """
        check_can_wait(self.scheduler, None)
        device = self._execution_device
        firsts, lowest = torch.tensor(starts, device=device) - 1, min(starts) - 1
        waiting: list[tuple[Tensor, Tensor]] = []

        def choose() -> list[Any]:
            return set_timesteps_from(self.scheduler, max(starts), None)

        def begin(places: slice, part: NoiseSource) -> Tensor:
            count = places.stop - places.start if part.seeds is None else len(part.seeds)
            rows, first = padded(x_0[places].to(device), count), padded(firsts[places], count)
            x_t = self.scheduler.add_noise(rows, part.initial(tuple(rows.shape), device), first)
            waiting[:] = [(x_t, first)]
            return x_t

        def on_step(index: int, t: Any, x: Tensor) -> Tensor | None:
            replaced = report(index, t, x)
            if t <= lowest:
                return replaced
            x_t, first = waiting[0]
            return torch.where((first >= t).reshape(-1, 1, 1, 1), x if replaced is None else replaced, x_t)

        return self.denoise(
            begin, choose, noise, len(x_0), labels=labels, micro_batch_size=micro_batch_size, report=on_step
        )

    def _renoise_from(
        self,
        x_0: Tensor,
        start: int,
        num_inference_steps: int | None,
        noise: NoiseSource,
        noise_of_images: NoiseSource | None,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """x_t and x_0 of images that all start at the same timestep."""
        noised: list[Tensor] = []
        if num_inference_steps is None:
            num_inference_steps = self.steps_from(start)

        def choose() -> list[Any]:
            return set_timesteps_from(self.scheduler, start, num_inference_steps)

        def begin(places: slice, part: NoiseSource) -> Tensor:
            rows = x_0[places].to(self._execution_device)
            if part.seeds is not None:
                rows = padded(rows, len(part.seeds))
            first = part if noise_of_images is None else noise_of_images.part(places, len(rows))
            x_t = self._add_noise(rows, int(choose()[0]), first)
            noised.append(x_t[: places.stop - places.start])
            return x_t

        drawn = self.denoise(begin, choose, noise, len(x_0), **options)
        return torch.cat(noised), drawn

    def noised(
        self, x_0: Tensor, start: int, num_inference_steps: int | None, noise_seeds: Sequence[int] | Tensor
    ) -> Tensor:
        """Input of `renoise`: x_t of images, (N, C, H, W), float32.

        Args: as there, with one start for all.
        """
        if start == 0:
            return x_0
        steps = self.steps_from(start) if num_inference_steps is None else num_inference_steps
        first = int(set_timesteps_from(self.scheduler, start, steps)[0])
        return self._add_noise(x_0.to(self._execution_device), first, NoiseSource.of(len(x_0), noise_seeds, None))

    def _add_noise(self, x_0: Tensor, timestep: int, noise: NoiseSource) -> Tensor:
        t = torch.full((len(x_0),), timestep, dtype=torch.int64, device=x_0.device)
        return self.scheduler.add_noise(x_0, noise.initial(tuple(x_0.shape), x_0.device), t)

    def check_steps(self, starts: Sequence[int], num_inference_steps: int | None) -> None:
        """Raises: ValueError: steps that the scheduler does not have from one of the starts."""
        for start in set(starts) - {0}:
            steps = self.steps_from(start) if num_inference_steps is None else num_inference_steps
            set_timesteps_from(self.scheduler, start, steps)

    def steps_from(self, start: int) -> int:
        """Steps from a start timestep if none are named: as many as `default_steps` over the whole chain has below it,
        and the start's own; 0 from 0."""
        if start in (0, self.scheduler.config.num_train_timesteps):
            return self.default_steps if start else 0
        self.set_even_timesteps(self.default_steps)
        below = sum(t < start - 1 for t in on_the_host(self.scheduler.timesteps))
        return nearest_steps(self.scheduler, start, below + 1)

    @torch.no_grad()
    def told_classes(self, x_0: Tensor) -> Tensor:
        """The class of each image, as the network tells it: the one with which it predicts noise best, over some
        timesteps and noises that are the same for all.  (Li et al. 2023, "Your Diffusion Model is Secretly a Zero-Shot
        Classifier", Alg. 1)

        Args:
            x_0: (N, C, H, W), float32, in [-1, 1].
        Returns: (N,), int64, on the CPU; takes 8 forward passes for each class.
        """
        assert self.num_classes is not None
        self.set_guidance(1.0, None)
        found = [self._errors_by_class(part.to(self._execution_device)).argmin(1).cpu() for part in x_0.split(64)]
        return torch.cat(found)

    def _errors_by_class(self, x_0: Tensor) -> Tensor:
        """(N, K), float32."""
        num_train, kind = self.scheduler.config.num_train_timesteps, self.scheduler.config.prediction_type
        predicts = [self.predictor(torch.full((len(x_0),), label)) for label in range(self.num_classes or 0)]
        errors = x_0.new_zeros(len(x_0), len(predicts))
        for seed, share in enumerate(TOLD_AT):
            t = round(share * (num_train - 1))
            alpha_bar = self.scheduler.alphas_cumprod[t].to(x_0.device, torch.float32)
            noise = NoiseSource.of(len(x_0), [seed] * len(x_0), None).initial(tuple(x_0.shape), x_0.device)
            x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise
            for label, predict in enumerate(predicts):
                output = predict(x_t.to(self.unet.dtype), t).float()[:, : x_0.shape[1]]
                wrong = predicted_noise(output, x_t, alpha_bar, kind) - noise
                errors[:, label] += wrong.square().flatten(1).mean(1)
        return errors

    def labels_or_any(self, class_labels: Labels | None, count: int) -> Tensor | None:
        """The labels given; else, for a class-conditional model, the null class.

        Raises: ValueError: as `check_labels`; or the model needs a class and knows none for "any".
        """
        labels = self.check_labels(class_labels, count)
        if labels is not None or self.num_classes is None:
            return labels
        if self.null_class is None:
            raise ValueError('the model needs a class for each image and knows none for "any": give class_labels')
        return torch.full((count,), self.null_class, dtype=torch.int64)

    def starts_of(self, start_timestep: Starts) -> list[int]:
        """One start or several.  Raises: ValueError: none, or one outside of the chain."""
        starts = [start_timestep] if isinstance(start_timestep, int) else [int(start) for start in start_timestep]
        check_starts("start_timestep", starts, self.scheduler.config.num_train_timesteps)
        if not starts:
            raise ValueError("start_timestep is empty; give at least one")
        return starts


def predicted_noise(output: Tensor, x_t: Tensor, alpha_bar: Tensor, prediction_type: str) -> Tensor:
    """The noise that a model's output says is in x_t.  (Salimans & Ho 2022, appendix D, for v)

    Args:
        output, x_t: (B, C, H, W), float32.
        alpha_bar: a number, on the same device.
        prediction_type: epsilon, sample or v_prediction.
    """
    if prediction_type == "epsilon":
        return output
    if prediction_type == "v_prediction":
        return alpha_bar.sqrt() * output + (1 - alpha_bar).sqrt() * x_t
    return (x_t - alpha_bar.sqrt() * output) / (1 - alpha_bar).sqrt()


def check_can_wait(scheduler: Any, num_inference_steps: int | None) -> None:
    """Raises: ValueError: a solver, or a number of steps, in which images cannot each have a start of their own."""
    if type(scheduler) is not FusedDDPMScheduler or num_inference_steps is not None:
        solver = type(scheduler).__name__ + ("" if num_inference_steps is None else f" in {num_inference_steps} steps")
        raise ValueError(
            f"a start timestep of its own for each image needs all steps of the ddpm solver, got {solver}; list some "
            "start timesteps, such as 100, 200, 300, or leave the solver and num_inference_steps out"
        )


def seeds_of_noise(noise_seeds: Sequence[int] | Tensor | None, num_inputs: int, count: int) -> Tensor | None:
    """Seeds of the noise that inputs get, one for each result: (count,), int64.

    Args:
        noise_seeds: one a result; or one an input, which all results of that input share; None: no seeds of their own.
        num_inputs, count: inputs, and the results of all of them, those of an input together.
    Raises: ValueError: neither as many as inputs nor as many as results; a seed outside of 64 bits.
    """
    if noise_seeds is None:
        return None
    given = len(noise_seeds)
    if given not in (num_inputs, count):
        raise ValueError(
            f"got {given} noise_seeds for {num_inputs} inputs and {count} results; give one an input (shared by its "
            f"results) or one a result"
        )
    seeds = NoiseSource.of(given, noise_seeds, None).seeds
    assert seeds is not None
    return seeds if given == count else seeds.repeat_interleave(count // num_inputs)


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
