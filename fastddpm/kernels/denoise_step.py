"""One reverse step.  (Ho et al. 2020, Eq. 6 and 7; the paper's Eq. 4)

    x_0     = from_sample x_t + from_output model_output        clipped where asked
    x_{t-1} = mean_x_0 x_0 + mean_sample x_t + sigma noise

The five coefficients of a timestep are a row of the scheduler's table: prediction type, variance type and respacing
are all in them. Without clipping this is Eq. 4,

    x_{t-1} = (x_t - (1 - alpha_t) / sqrt(1 - abar_t) eps) / sqrt(alpha_t) + sigma z
"""

from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = ("from_sample", "from_output", "mean_x_0", "mean_sample", "sigma")
"""columns of the table"""


def denoise_step_reference(
    model_output: Tensor,
    sample: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    table: Tensor,
    clip_range: float | None,
    model_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample x_{t-1} ~ p(x_{t-1} | x_t) for a timestep an image.

    Args:
        model_output: (B, ...), float.
        sample: x_t, (B, ...), float.
        noise: z, shape of `sample`, finite; without effect where sigma is 0, as in the last step.
        timesteps: (B,), int64, rows of the table.
        table: (T, 5), float32, columns as `COEFFICIENTS`.
        clip_range: x_0 is clipped to [-clip_range, clip_range]; None: not clipped.
        model_dtype: dtype of the second result.
    Returns: x_{t-1} in float32, the same in `model_dtype`, and x_0 in float32; each of the shape of `sample`.
    """
    rows = table[timesteps].view(-1, len(COEFFICIENTS), *[1] * (sample.dim() - 1))
    from_sample, from_output, mean_x_0, mean_sample, sigma = rows.unbind(1)
    x_t = sample.float()
    x_0 = from_sample * x_t + from_output * model_output.float()
    if clip_range is not None:
        x_0 = x_0.clamp(-clip_range, clip_range)
    x_prev = mean_x_0 * x_0 + mean_sample * x_t + sigma * noise.float()
    return x_prev, x_prev.to(model_dtype, copy=True), x_0


@torch.library.triton_op("fastddpm::denoise_step", mutates_args={})
def denoise_step(
    model_output: Tensor,
    sample: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    table: Tensor,
    clip_range: float | None,
    model_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator of `denoise_step_reference`, with its arguments and results."""
    return denoise_step_reference(model_output, sample, noise, timesteps, table, clip_range, model_dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    model_output, sample, noise, timesteps, table, clip_range, _ = inputs
    ctx.dtypes = model_output.dtype, sample.dtype, noise.dtype
    ctx.clip_range = clip_range
    x_0 = [] if clip_range is None else [output[2]]  # at its bounds no gradient passes
    ctx.save_for_backward(timesteps, table, *x_0)


def _backward(ctx: Any, grad_prev: Tensor, grad_input: Tensor, grad_x_0: Tensor) -> tuple[Tensor | None, ...]:
    timesteps, table, *clipped = ctx.saved_tensors
    rows = table[timesteps].view(-1, len(COEFFICIENTS), *[1] * (grad_prev.dim() - 1))
    from_sample, from_output, mean_x_0, mean_sample, sigma = rows.unbind(1)
    grad = grad_prev + grad_input.float()
    to_x_0 = grad_x_0 + mean_x_0 * grad
    if clipped:
        to_x_0 = to_x_0 * (clipped[0].abs() < ctx.clip_range)
    grads = from_output * to_x_0, from_sample * to_x_0 + mean_sample * grad, sigma * grad
    output, sample, noise = (g.to(dtype) for g, dtype in zip(grads, ctx.dtypes, strict=True))
    return output, sample, noise, None, None, None, None


denoise_step.register_autograd(_backward, setup_context=_setup_context)
