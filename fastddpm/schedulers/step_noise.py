"""Noise of a reverse step, and the step taken with it."""

from dataclasses import dataclass

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from fastddpm import draws
from fastddpm.kernels.denoise_step import denoise_step
from fastddpm.kernels.denoise_step_cpu import denoise_step_on_cpu, draws_alike_in_pieces

Generator = torch.Generator | list[torch.Generator] | None
Dtypes = tuple[torch.dtype, torch.dtype | None, torch.dtype | None]
"""dtypes of x_{t-1}, of the model's next input and of x_0; None: not wanted"""


@dataclass(frozen=True)
class StepNoise:
    """One of these, or none of them: torch's global generator.

    Args:
        positions: (B,), int64, seeds of keyed noise.
        generator: one, or a list of one an image.
        given: the noise itself, shape of the sample.
        dtype: that a generator draws.
    """

    positions: Tensor | None = None
    generator: Generator = None
    given: Tensor | None = None
    dtype: torch.dtype = torch.float32

    def drawn(self, sample: Tensor, timesteps: int | Tensor, per_image: Tensor) -> Tensor:
        """The noise of a step, shape of `sample`."""
        if self.given is not None:
            return self.given
        if self.positions is not None:
            seed, stream = draws.SAMPLING_KEY, draws.Stream.STEP_NOISE
            return draws.normal(self.positions, sample.shape[1:], seed=seed, stream=stream, draw=per_image)
        if _is_zero(timesteps):  # the last step adds none, and diffusers draws none for it
            return torch.zeros_like(sample, dtype=self.dtype)
        return randn_tensor(sample.shape, generator=self.generator, device=sample.device, dtype=self.dtype)

    def step(
        self,
        model_output: Tensor,
        sample: Tensor,
        timesteps: int | Tensor,
        per_image: Tensor,
        coefficients: Tensor,
        clip_range: float | None,
        dtypes: Dtypes,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`denoise_step` with this noise; keyed noise, and on a CPU a generator's, is made on the way.

        Args: see `denoise_step_reference`; timesteps: as they were given; per_image: (B,), int64.
        """
        is_plain = dtypes in ((torch.float32, None, None), (torch.float32, None, torch.float32))
        if is_plain and self._is_one_generator and draws_alike_in_pieces(model_output, sample, per_image):
            is_last, generator = _is_zero(timesteps), self.generator

            def draw_noise_(piece: Tensor, _: slice) -> Tensor:
                return piece.zero_() if is_last else piece.normal_(generator=generator)  # type: ignore[arg-type]

            with_x_0 = dtypes[2] is not None
            x_prev, x_0 = denoise_step_on_cpu(
                model_output, sample, per_image, coefficients, draw_noise_, clip_range, with_x_0
            )
            return x_prev, x_prev.new_empty(0), x_0
        noise = self.drawn(sample, timesteps, per_image) if self.positions is None else None
        key = self.positions, draws.SAMPLING_KEY, int(draws.Stream.STEP_NOISE)
        return denoise_step(model_output, sample, per_image, coefficients, noise, *key, clip_range, *dtypes)

    @property
    def _is_one_generator(self) -> bool:
        on_cpu = self.generator is None or getattr(getattr(self.generator, "device", None), "type", None) == "cpu"
        return self.positions is None and self.given is None and self.dtype is torch.float32 and on_cpu


def _is_zero(timesteps: int | Tensor) -> bool:
    return (not isinstance(timesteps, Tensor) or timesteps.numel() == 1) and int(timesteps) == 0
