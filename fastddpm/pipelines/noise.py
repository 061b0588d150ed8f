"""Noise of a picture: from a seed for each image, or from diffusers' generators."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from fastddpm import draws
from fastddpm.pipelines.portable import Generator


@dataclass(frozen=True)
class NoiseSource:
    """Noise of some images. With `seeds`, (B,) int64, each image's noise depends on its own seed alone."""

    seeds: Tensor | None
    generator: Generator

    @classmethod
    def of(cls, batch_size: int, seeds: Sequence[int] | Tensor | None, generator: Generator) -> "NoiseSource":
        """Check a pipeline's arguments.

        Raises: ValueError: both seeds and generator; not one an image; a seed outside of 64 bits.
        """
        if seeds is None:
            if isinstance(generator, list) and len(generator) != batch_size:
                raise ValueError(f"got {len(generator)} generators for {batch_size} images; give one, or one an image")
            return cls(None, generator)
        if generator is not None:
            raise ValueError("got both seeds and generator; give seeds (reproducible image by image) or a generator")
        numbers = [int(seed) for seed in seeds]
        if len(numbers) != batch_size:
            raise ValueError(f"got {len(numbers)} seeds for {batch_size} images; give one seed an image")
        if any(not 0 <= number < 2**63 for number in numbers):
            raise ValueError("seeds must be integers from 0 to 2^63 - 1")
        return cls(torch.tensor(numbers, dtype=torch.int64), None)

    def take(self, rows: Tensor) -> "NoiseSource":
        """The source of the images at some places: (b,), int64."""
        generator = self.generator
        if isinstance(generator, list):
            generator = [generator[place] for place in rows.tolist()]
        return NoiseSource(None if self.seeds is None else self.seeds[rows], generator)

    def part(self, places: slice, size: int) -> "NoiseSource":
        """The source of some of the images; seeds are padded to `size` by repeating the last one."""
        if self.seeds is not None:
            seeds = self.seeds[places]
            return NoiseSource(torch.cat([seeds, seeds[-1:].expand(size - len(seeds))]), None)
        generator = self.generator[places] if isinstance(self.generator, list) else self.generator
        return NoiseSource(None, generator)

    def initial(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Standard normal noise to start from: `shape` = (B, C, H, W), float32."""
        if self.seeds is None:
            return randn_tensor(shape, generator=self.generator, device=device, dtype=torch.float32)
        positions = self.seeds.to(device, non_blocking=True)
        return draws.normal(positions, shape[1:], seed=draws.SAMPLING_KEY, stream=draws.Stream.INITIAL_NOISE)

    def generators(self) -> Generator:
        """Generators for a stock scheduler's `step`: the one given, or one for each seed."""
        if self.seeds is None:
            return self.generator
        return [torch.Generator().manual_seed(seed) for seed in self.seeds.tolist()]
