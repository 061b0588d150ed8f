"""The forward jump.  (Ho et al. 2020, Eq. 4; the paper's Eq. 2)

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise
"""

from typing import Any

import torch
from torch import Tensor


def add_noise_reference(
    x_0: Tensor, noise: Tensor, timesteps: Tensor, sqrt_alpha_bar: Tensor, sqrt_one_minus_alpha_bar: Tensor
) -> Tensor:
    """Sample x_t ~ q(x_t | x_0) for a timestep an image.

    Args:
        x_0: (B, ...), float.
        noise: shape of `x_0`, float.
        timesteps: (B,), int64, indices into the tables.
        sqrt_alpha_bar, sqrt_one_minus_alpha_bar: (T,), float32.
    Returns: x_t, (B, ...), float32, in the memory format of `x_0`.
    """
    per_image = (-1, *[1] * (x_0.dim() - 1))
    signal = sqrt_alpha_bar[timesteps].view(per_image)
    spread = sqrt_one_minus_alpha_bar[timesteps].view(per_image)
    return signal * x_0.float() + spread * noise.float()


@torch.library.triton_op("fastddpm::add_noise", mutates_args={})
def add_noise(
    x_0: Tensor, noise: Tensor, timesteps: Tensor, sqrt_alpha_bar: Tensor, sqrt_one_minus_alpha_bar: Tensor
) -> Tensor:
    """The operator of `add_noise_reference`, with its arguments and result."""
    return add_noise_reference(x_0, noise, timesteps, sqrt_alpha_bar, sqrt_one_minus_alpha_bar)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x_0, noise, timesteps, sqrt_alpha_bar, sqrt_one_minus_alpha_bar = inputs
    ctx.save_for_backward(timesteps, sqrt_alpha_bar, sqrt_one_minus_alpha_bar)
    ctx.dtypes = x_0.dtype, noise.dtype


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    timesteps, *tables = ctx.saved_tensors
    per_image = (-1, *[1] * (grad.dim() - 1))
    to_x_0, to_noise = (
        (table[timesteps].view(per_image) * grad).to(dtype) for table, dtype in zip(tables, ctx.dtypes, strict=True)
    )
    return to_x_0, to_noise, None, None, None


add_noise.register_autograd(_backward, setup_context=_setup_context)
