"""Blends of two images: one pasted into the other, noised to a timestep, denoised.  (the paper's figure 9)"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from fastddpm import draws
from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.portable import Callback, Generator, Labels, check_output_type, in_format
from fastddpm.pipelines.renoise import Images, RenoisingPipeline, Starts, seeds_of_noise, to_x_0
from fastddpm.pipelines.shown import Shown

Boxes = Sequence[int] | Sequence[Sequence[int]] | Tensor
Masks = Image.Image | Sequence[Image.Image] | np.ndarray | Tensor


@dataclass
class CutMixOutput(BaseOutput, Shown):
    """Blends, those of the first pair first."""

    images: list[Image.Image] | np.ndarray | Tensor
    """the blends"""
    pastes: list[Image.Image] | np.ndarray | Tensor
    """images that were noised: the hard-edged pastes"""
    noised: list[Image.Image] | np.ndarray | Tensor
    """x_t"""
    masks: Tensor
    """(N, 1, H, W), bool, on the CPU: true at the partner's pixels"""

    @property
    def shares(self) -> list[float]:
        """The partner's share of each paste's pixels, 0 to 1: its weight in a soft label."""
        return self.masks.double().mean(dim=(1, 2, 3)).tolist()


class CutMixPipeline(RenoisingPipeline):
    """Paste a part of one image into another and let the model make one image of it."""

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        images: Images,
        partners: Images,
        start_timestep: Starts = 300,
        num_blends: int = 1,
        generator: Generator = None,
        num_inference_steps: int | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        *,
        boxes: Boxes | None = None,
        masks: Masks | None = None,
        alpha: float = 1.0,
        class_labels: Labels | None = None,
        guidance_scale: float | None = None,
        seeds: Sequence[int] | Tensor | None = None,
        noise_seeds: Sequence[int] | Tensor | None = None,
        micro_batch_size: int | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Blend each image with its partner, `num_blends` times.

        The B * S * K results of B pairs, S start timesteps and K blends stand as in `VariationPipeline`.

        Args:
            images, partners: as in `VariationPipeline`; as many partners as images, or one for all.
            start_timestep: denoising steps left to go, one number or S of them; 0 returns the pastes.
            num_blends: K, a pair and start timestep.
            boxes: (top, left, height, width) of the part that comes from the partner, in pixels; one for all, one a
                pair, or one a result.
            masks: the same for parts of any form: where the partner's pixels go. Images of mode 1 or L (white), or
                (H, W), (1, H, W) or (M, 1, H, W), bool; M as for boxes.
            alpha: with neither, boxes are drawn as CutMix does, with lambda ~ Beta(alpha, alpha), each result its own
                from its seed (or from the generator).
            num_inference_steps, generator, seeds, noise_seeds, guidance_scale, output_type, return_dict, class_labels,
                micro_batch_size, callback_on_step_end: as in `VariationPipeline`; without labels, of any class.
        Returns: a `CutMixOutput`, or a tuple of its members.
        Raises: ValueError: arguments that contradict each other, the model or the size of its images.
        """
        check_output_type(output_type)
        if num_blends < 1:
            raise ValueError(f"num_blends is {num_blends}; ask for at least one of each pair")
        starts = [start for start in self.starts_of(start_timestep) for _ in range(num_blends)]
        a, b = self._pairs(images, partners)
        num_pairs, count = len(a), len(a) * len(starts)
        noise = NoiseSource.of(count, seeds, generator)
        labels = self.labels_or_any(class_labels, count)
        self.set_guidance(guidance_scale, labels)
        inside = self._masks(boxes, masks, alpha, num_pairs, count, noise)
        a, b = (x.repeat_interleave(len(starts), dim=0) for x in (a, b))
        pastes = torch.where(inside, b, a)
        x_0, x_t = self.renoise(
            pastes, starts * num_pairs, num_inference_steps, noise, seeds_of_noise(noise_seeds, num_pairs, count),
            labels=labels, micro_batch_size=micro_batch_size,
            report=self.reporter(callback_on_step_end, callback_on_step_end_tensor_inputs),
        )  # fmt: skip
        made = CutMixOutput(*(in_format(x, output_type) for x in (x_0, pastes, x_t)), masks=inside)
        return made if return_dict else made.to_tuple()

    def _pairs(self, images: Images, partners: Images) -> tuple[Tensor, Tensor]:
        a, b = (to_x_0(given, self.image_shape) for given in (images, partners))
        if len(b) not in (1, len(a)):
            raise ValueError(f"got {len(a)} images and {len(b)} partners; give one partner an image, or one for all")
        return a, b.expand_as(a)

    def _masks(
        self, boxes: Boxes | None, masks: Masks | None, alpha: float, num_pairs: int, count: int, noise: NoiseSource
    ) -> Tensor:
        """(count, 1, H, W), bool, on the CPU."""
        _, height, width = self.image_shape
        if boxes is not None and masks is not None:
            raise ValueError("got both boxes and masks; give one of them, or neither, to have boxes drawn")
        if boxes is None and masks is None:
            if not alpha > 0:
                raise ValueError(f"alpha is {alpha}; it must be above 0 (1: every share of the box is as likely)")
            return masks_of_boxes(draw_boxes(_uniforms(noise, count), alpha, height, width), height, width)
        if boxes is not None:
            several = torch.as_tensor(boxes)
            found = masks_of_boxes(several[None] if several.dim() == 1 else several, height, width)
        else:
            assert masks is not None
            found = to_masks(masks, height, width)
        return _one_a_result(found, num_pairs, count)


def boxes_of_seeds(seeds: Tensor, alpha: float, height: int, width: int) -> Tensor:
    """The boxes that images of these seeds, (B,) int64, get: (B, 4), int64; see `draw_boxes`."""
    return draw_boxes(_uniforms_of_seeds(seeds), alpha, height, width)


def _uniforms_of_seeds(seeds: Tensor) -> Tensor:
    key, stream = draws.SAMPLING_KEY, draws.Stream.BOX
    return torch.stack([draws.uniform(seeds, seed=key, stream=stream, draw=i) for i in range(NUM_UNIFORMS)], dim=1)


def _uniforms(noise: NoiseSource, count: int) -> Tensor:
    """(count, 5), float64, of [0, 1): by seed, or from the generator."""
    if noise.seeds is not None:
        return _uniforms_of_seeds(noise.seeds)
    if isinstance(noise.generator, list):
        return torch.stack([_uniform_row(generator) for generator in noise.generator])
    return torch.stack([_uniform_row(noise.generator) for _ in range(count)])


def _uniform_row(generator: torch.Generator | None) -> Tensor:
    device = "cpu" if generator is None else generator.device
    return torch.rand(NUM_UNIFORMS, generator=generator, dtype=torch.float64, device=device).cpu()


def _one_a_result(masks: Tensor, num_pairs: int, count: int) -> Tensor:
    if len(masks) not in (1, num_pairs, count):
        raise ValueError(
            f"got {len(masks)} boxes or masks for {num_pairs} pairs and {count} results; give one for all, one a pair, "
            "or one a result"
        )
    return masks.repeat_interleave(count // len(masks), dim=0)


def to_masks(masks: Masks, height: int, width: int) -> Tensor:
    """Masks of any accepted kind: (M, 1, H, W), bool.

    Raises: ValueError: another size, mode or dtype; gray values between black and white.
    """
    if isinstance(masks, Image.Image):
        masks = [masks]
    if not isinstance(masks, np.ndarray | Tensor):
        masks = torch.stack([_mask_of(image) for image in masks])
    found = torch.as_tensor(masks)
    if found.dtype != torch.bool:
        raise ValueError(f"masks are {found.dtype}; wanted bool (True: the partner's pixel), or images of mode 1 or L")
    found = found.reshape(-1, 1, *found.shape[-2:])
    if tuple(found.shape[-2:]) != (height, width):
        raise ValueError(f"masks are {found.shape[-2]}x{found.shape[-1]}; the model makes {height}x{width} images")
    return found


def _mask_of(image: Image.Image) -> Tensor:
    if image.mode not in ("1", "L"):
        raise ValueError(f"a mask has mode {image.mode}; wanted black and white, of mode 1 or L")
    pixels = torch.from_numpy(np.array(image.convert("L")))
    if not bool(((pixels == 0) | (pixels == 255)).all()):
        raise ValueError("a mask has grays; wanted black and white (255: the partner's pixel)")
    return pixels == 255


NUM_UNIFORMS = 5
"""numbers that a box takes"""


def draw_boxes(uniforms: Tensor, alpha: float, height: int, width: int) -> Tensor:
    """Boxes of a share of 1 - lambda of the image, lambda ~ Beta(alpha, alpha), centred anywhere, cut at the edges.

    Args:
        uniforms: (B, 5), float64, of [0, 1).
        alpha: > 0; 1 is CutMix's: every share is as likely.
    Returns: (B, 4), int64: top, left, height, width; a box may be empty.
    """
    side = (1 - symmetric_beta(uniforms[:, :3], alpha)).sqrt()
    sizes = torch.stack([side * height, side * width], dim=1).long()
    centres = (uniforms[:, 3:] * torch.tensor([height, width])).long()
    limits = torch.tensor([height, width])
    firsts, ends = (centres - sizes // 2).clamp_min(0), torch.minimum(centres + (sizes + 1) // 2, limits)
    return torch.cat([firsts, ends - firsts], dim=1)


def symmetric_beta(uniforms: Tensor, alpha: float) -> Tensor:
    """Beta(alpha, alpha), exactly, from three uniforms each.  (Devroye 1996, "one line of code", for all alpha > 0)

    Args:
        uniforms: (B, 3), float64, of [0, 1).
    Returns: (B,), float64, in [0, 1].
    """
    u, v, w = uniforms.unbind(1)
    spread = ((1 - u).pow(-1 / alpha) - 1) * (2 * math.pi * v).cos().square()
    half = 0.5 / (1 + 1 / spread).sqrt()
    return torch.where(w < 0.5, 0.5 - half, 0.5 + half)


def masks_of_boxes(boxes: Sequence[Sequence[int]] | Tensor, height: int, width: int) -> Tensor:
    """True inside: (B, 1, H, W), bool.

    Args:
        boxes: (B, 4): top, left, height, width.
    Raises: ValueError: not four whole numbers each, or outside of the image.
    """
    found = torch.as_tensor(boxes)
    if found.dim() != 2 or found.shape[1] != 4 or found.is_floating_point():
        raise ValueError(f"boxes are {tuple(found.shape)} of {found.dtype}; wanted (top, left, height, width) for each")
    tops, lefts, heights, widths = found.to(torch.int64)[:, :, None].unbind(1)
    inside = (tops >= 0) & (lefts >= 0) & (heights >= 0) & (widths >= 0)
    if not bool((inside & (tops + heights <= height) & (lefts + widths <= width)).all()):
        raise ValueError(f"boxes {found.tolist()} leave the image of {height}x{width} (top, left, height, width)")
    rows, columns = torch.arange(height)[None, :], torch.arange(width)[None, :]
    in_rows = (rows >= tops) & (rows < tops + heights)
    in_columns = (columns >= lefts) & (columns < lefts + widths)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
