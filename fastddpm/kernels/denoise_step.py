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

from fastddpm.kernels.denoise_step_cpu import denoise_step_on_cpu, in_memory_order
from fastddpm.kernels.layout import dense, is_channels_last, memory_format_of, place_of, plane_of, same_layout
from fastddpm.kernels.philox import check_num_elements, keyed_normals, philox_normal
from fastddpm.kernels.triton_or_not import jit, launch, num_chunks, operator, tl

COEFFICIENTS = ("from_sample", "from_output", "mean_x_0", "mean_sample", "sigma")
"""columns of the table"""
Results = tuple[Tensor, Tensor, Tensor]


def denoise_step_reference(
    model_output: Tensor,
    sample: Tensor,
    timesteps: Tensor,
    table: Tensor,
    noise: Tensor | None,
    positions: Tensor | None,
    seed: int,
    stream: int,
    clip_range: float | None,
    x_prev_dtype: torch.dtype,
    model_dtype: torch.dtype | None,
    x_0_dtype: torch.dtype | None,
) -> Results:
    """Sample x_{t-1} ~ p(x_{t-1} | x_t) for one timestep per image. Everything is computed in float32.

    Args:
        model_output: (B, ...), float.
        sample: x_t, (B, ...), float.
        timesteps: (B,), int64, rows of the table.
        table: (T, 5), float32, columns as `COEFFICIENTS`.
        noise: z, shape of `sample`, finite; without effect where sigma is 0, as in the last step; or None: the keyed
            normals of
        positions: (B,), int64, with the timestep as draw, and of
        seed, stream: see `kernels/philox.py`; the seed as a signed number.
        clip_range: x_0 is clipped to [-clip_range, clip_range]; None: not clipped.
        x_prev_dtype: dtype of x_{t-1}.
        model_dtype: dtype of the second result, the model's next input; None: not wanted.
        x_0_dtype: dtype of the third result, x_0; None: not wanted.
    Returns: x_{t-1}; the same in `model_dtype`; x_0. Each in the shape and memory format of `sample`; what is not
        wanted has 0 elements.
    """
    if noise is None:
        assert positions is not None
        flat = philox_normal(positions, sample.shape[1:].numel(), seed=seed, stream=stream, draw=timesteps)
        noise = flat.view(sample.shape)
    rows = table[timesteps].view(-1, len(COEFFICIENTS), *[1] * (sample.dim() - 1))
    from_sample, from_output, mean_x_0, mean_sample, sigma = rows.unbind(1)
    x_t = sample.float()
    x_0 = from_sample * x_t + from_output * model_output.float()
    if clip_range is not None:
        x_0 = x_0.clamp(-clip_range, clip_range)
    x_prev = mean_x_0 * x_0 + mean_sample * x_t + sigma * noise.float()
    wanted = (x_prev, x_prev_dtype), (x_prev, model_dtype), (x_0, x_0_dtype)
    own_format = memory_format_of(sample)
    x_prev, model_input, x_0 = (
        sample.new_empty(0) if dtype is None else x.to(dtype, copy=True, memory_format=own_format)
        for x, dtype in wanted
    )
    return x_prev, model_input, x_0


# -- Triton ---------------------------------------------------------------------------------------------------------


@jit(do_not_specialize=["seed", "stream"])
def denoise_step_kernel(
    model_output_ptr,  # (B, C, H, W), float
    sample_ptr,  # (B, C, H, W), float
    noise_ptr,  # (B, C, H, W), float; None: keyed
    positions_ptr,  # (B,), int64; None: given
    timesteps_ptr,  # (B,), int64
    table_ptr,  # (T, 5), float32
    x_prev_ptr,  # (B, C, H, W), float
    model_input_ptr,  # (B, C, H, W), float; None: not wanted
    x_0_ptr,  # (B, C, H, W), float; None: not wanted
    num_elements,
    num_pixels,
    num_channels,
    seed,
    stream,
    clip_range,  # None: not clipped
    OUTPUT_CHANNELS_LAST: tl.constexpr,
    NOISE_CHANNELS_LAST: tl.constexpr,
    SAMPLE_CHANNELS_LAST: tl.constexpr,  # and the results
    BLOCK: tl.constexpr,
):
    """A chunk of one image; without keyed noise and in one memory format, in whatever order it lies."""
    chunks = tl.cdiv(num_elements, BLOCK)
    image, chunk = (tl.program_id(0) // chunks).to(tl.int64), tl.program_id(0) % chunks
    element = chunk * BLOCK + tl.arange(0, BLOCK)
    inside = element < num_elements
    first = image * num_elements
    place = first + place_of(element, num_pixels, num_channels, SAMPLE_CHANNELS_LAST)
    output_place = first + place_of(element, num_pixels, num_channels, OUTPUT_CHANNELS_LAST)
    output = tl.load(model_output_ptr + output_place, mask=inside, other=0.0).to(tl.float32)
    x_t = tl.load(sample_ptr + place, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(timesteps_ptr + image)
    if noise_ptr is None:
        noise = keyed_normals(chunk, tl.load(positions_ptr + image), t, seed, stream, BLOCK)
    else:
        noise_place = first + place_of(element, num_pixels, num_channels, NOISE_CHANNELS_LAST)
        noise = tl.load(noise_ptr + noise_place, mask=inside, other=0.0).to(tl.float32)
    row_ptr = table_ptr + t * 5
    x_0 = tl.fma(tl.load(row_ptr), x_t, tl.load(row_ptr + 1) * output)
    if clip_range is not None:
        bound = tl.full((), clip_range, tl.float32)
        x_0 = tl.clamp(x_0, -bound, bound, propagate_nan=tl.PropagateNan.ALL)
    mean = tl.fma(tl.load(row_ptr + 2), x_0, tl.load(row_ptr + 3) * x_t)
    x_prev = tl.fma(tl.load(row_ptr + 4), noise, mean)
    tl.store(x_prev_ptr + place, x_prev.to(x_prev_ptr.dtype.element_ty), mask=inside)
    if model_input_ptr is not None:
        tl.store(model_input_ptr + place, x_prev.to(model_input_ptr.dtype.element_ty), mask=inside)
    if x_0_ptr is not None:
        tl.store(x_0_ptr + place, x_0.to(x_0_ptr.dtype.element_ty), mask=inside)


def launch_denoise_step(model_output, sample, timesteps, table, noise, positions, seed, stream, clip_range, *dtypes):
    num_elements = sample.shape[1:].numel()
    check_num_elements(num_elements)
    output, sample, noise = dense(model_output), dense(sample), None if noise is None else dense(noise)
    own = memory_format_of(sample)
    results = [None if dtype is None else torch.empty_like(sample, dtype=dtype, memory_format=own) for dtype in dtypes]
    any_order = noise is not None and same_layout(output, sample, noise)
    launch(
        denoise_step_kernel, sample, len(sample) * num_chunks(num_elements),
        output, sample, noise, None if positions is None else positions.contiguous(), timesteps.contiguous(),
        table.contiguous(), *results, num_elements, *plane_of(sample), seed, stream, clip_range,
        OUTPUT_CHANNELS_LAST=not any_order and is_channels_last(output),
        NOISE_CHANNELS_LAST=not any_order and noise is not None and is_channels_last(noise),
        SAMPLE_CHANNELS_LAST=not any_order and is_channels_last(sample),
    )  # fmt: skip
    x_prev, model_input, x_0 = (sample.new_empty(0) if result is None else result for result in results)
    return x_prev, model_input, x_0


denoise_step = operator("denoise_step", denoise_step_reference, launch_denoise_step)


@denoise_step.register_kernel("cpu")
def _on_cpu(model_output, sample, timesteps, table, noise, positions, seed, stream, clip_range, *dtypes):
    x_prev_dtype, model_dtype, x_0_dtype = dtypes
    own_format = memory_format_of(sample)
    if noise is None:
        assert positions is not None
        flat = philox_normal(positions, sample.shape[1:].numel(), seed=seed, stream=stream, draw=timesteps)
        noise = flat.view(sample.shape)
    in_order = in_memory_order(noise.contiguous(memory_format=own_format))
    x_prev, x_0 = denoise_step_on_cpu(
        model_output.detach(), sample.detach(), timesteps, table, lambda noised, piece: noised.copy_(in_order[piece]),
        clip_range, x_0_dtype is not None,
    )  # fmt: skip
    model_input = x_prev.new_empty(0) if model_dtype is None else x_prev.to(model_dtype, copy=True)
    return x_prev.to(x_prev_dtype), model_input, x_0 if x_0_dtype is None else x_0.to(x_0_dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Results) -> None:
    model_output, sample, timesteps, table, noise, _, _, _, clip_range, *_ = inputs
    ctx.dtypes = model_output.dtype, sample.dtype, None if noise is None else noise.dtype
    ctx.clip_range = clip_range
    of_x_0 = [] if clip_range is None else [model_output, sample]  # at its bounds no gradient passes
    ctx.save_for_backward(timesteps, table, *of_x_0)


def _backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    timesteps, table, *of_x_0 = ctx.saved_tensors
    to_x_prev, to_input, to_x_0 = (grad.float() if grad.numel() else 0.0 for grad in grads)
    rows = table[timesteps].view(-1, len(COEFFICIENTS), *[1] * (grads[0].dim() - 1))
    from_sample, from_output, mean_x_0, mean_sample, sigma = rows.unbind(1)
    grad = to_x_prev + to_input
    to_x_0 = to_x_0 + mean_x_0 * grad
    if of_x_0:
        output, sample = of_x_0
        to_x_0 = to_x_0 * ((from_sample * sample.float() + from_output * output.float()).abs() < ctx.clip_range)
    to_output, to_sample, to_noise = (
        None if dtype is None else g.to(dtype)
        for g, dtype in zip(
            (from_output * to_x_0, from_sample * to_x_0 + mean_sample * grad, sigma * grad), ctx.dtypes, strict=True
        )
    )
    return to_output, to_sample, None, None, to_noise, *[None] * 7


denoise_step.register_autograd(_backward, setup_context=_setup_context)
