"""DCGAN: a generator and a discriminator of strided convolutions.  (Radford, Metz & Chintala 2016, Sec. 3)"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from fastddpm import draws
from fastddpm.draws import Stream
from fastddpm.pipelines.base import padded
from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.portable import Generator as RandomGenerator
from fastddpm.pipelines.portable import check_output_type, in_format
from fastddpm.pipelines.shown import SampleOutput

SLOPE = 0.2
"""slope of the discriminator's leaky ReLUs"""
SPREAD = 0.02
"""standard deviation of all first weights"""


class DCGANGenerator(ModelMixin, ConfigMixin):
    """(B, latent_dim) normal numbers -> (B, C, H, W) in [-1, 1].

    The image's side is halved while it is even and above 4 (28: 14, 7; 64: 32, 16, 8, 4): from that size each
    transposed convolution doubles it. Channels halve from level to level down to `width`.

    Args:
        sample_size: H = W, in pixels.
        in_channels: C.
        latent_dim: numbers that an image is made of.
        width: channels before the last convolution.
    """

    @register_to_config
    def __init__(self, sample_size: int = 28, in_channels: int = 1, latent_dim: int = 100, width: int = 64):
        super().__init__()
        first, levels = first_side_and_levels(sample_size)
        channels = [width * 2 ** (levels - 1 - level) for level in range(levels)]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, channels[0], first, bias=False)]
        layers += [nn.BatchNorm2d(channels[0]), nn.ReLU()]
        for c_in, c_out in itertools.pairwise(channels):
            layers += [nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(channels[-1], in_channels, 4, 2, 1), nn.Tanh())
        self.apply(_draw_first_weights)

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents[:, :, None, None])


class DCGANDiscriminator(nn.Module):
    """(B, C, H, W) in [-1, 1] -> (B,) logits, above 0 for what it takes for real; the generator's levels backwards."""

    def __init__(self, sample_size: int, in_channels: int, width: int):
        super().__init__()
        first, levels = first_side_and_levels(sample_size)
        channels = [in_channels, *(width * 2**level for level in range(levels))]
        layers: list[nn.Module] = []
        for level, (c_in, c_out) in enumerate(itertools.pairwise(channels)):
            layers.append(nn.Conv2d(c_in, c_out, 4, 2, 1, bias=level == 0))
            layers += [nn.LeakyReLU(SLOPE)] if level == 0 else [nn.BatchNorm2d(c_out), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, first))
        self.apply(_draw_first_weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).flatten()


def first_side_and_levels(sample_size: int) -> tuple[int, int]:
    """The side that an image is built up from, and how often it is doubled.

    Raises: ValueError: an odd size, or one below 8.
    """
    side, levels = sample_size, 0
    while side % 2 == 0 and side > 4:
        side, levels = side // 2, levels + 1
    if levels == 0 or sample_size < 8:
        raise ValueError(
            f"images of {sample_size}x{sample_size} cannot be halved; give an even side of at least 8 pixels"
        )
    return side, levels


def _draw_first_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, SPREAD)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, SPREAD)
        nn.init.zeros_(module.bias)


class DCGANPipeline(DiffusionPipeline):
    """Draw images from a trained generator; a folder of it is saved and loaded as diffusers' pipelines are."""

    model_cpu_offload_seq = "generator"

    def __init__(self, generator: DCGANGenerator):
        super().__init__()
        self.register_modules(generator=generator)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> "DCGANPipeline":
        """Load a saved folder, or an id on the Hub, by its generator alone: the module that its index names may have
        moved since. `options` are those of `DCGANGenerator.from_pretrained`."""
        return cls(DCGANGenerator.from_pretrained(pretrained_model_name_or_path, subfolder="generator", **options))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        config = self.generator.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def network(self) -> DCGANGenerator:
        """Network that computes."""
        return self.generator

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: RandomGenerator = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        *,
        seeds: Sequence[int] | Tensor | None = None,
        micro_batch_size: int | None = None,
    ) -> Any:
        """Draw images.

        Args: as of `FastDDPMPipeline`; the generator network must be in eval mode for images that do not depend on
            what else is drawn.
        """
        check_output_type(output_type)
        count = batch_size if seeds is None else len(seeds)
        noise = NoiseSource.of(count, seeds, generator)
        size = micro_batch_size or count
        parts: list[Tensor] = []
        for first in range(0, count, size):
            places = slice(first, min(first + size, count))
            part, length, device = noise.part(places, size), self.generator.config.latent_dim, self._execution_device
            if part.seeds is None:
                drawn = part.initial((places.stop - places.start, length), device)
            else:
                drawn = latents(part.seeds.to(device, non_blocking=True), length, draws.SAMPLING_KEY)
            images = self.generator(padded(drawn, size).to(self.generator.dtype))
            parts.append(images[: places.stop - first].float())
        images = in_format(torch.cat(parts), output_type)
        return SampleOutput(images=images) if return_dict else (images,)


def latents(positions: Tensor, latent_dim: int, seed: int) -> Tensor:
    """The numbers that images are made of: (B, latent_dim), float32; positions or seeds, (B,) int64."""
    return draws.normal(positions, (latent_dim,), seed=seed, stream=Stream.LATENT)
