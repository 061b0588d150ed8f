"""The forward jump.  (Ho et al. 2020, Eq. 4; the paper's Eq. 2)

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise

with x_0 as it is stored, uint8 or floating, and x_t as the model takes it.
"""

from typing import Any

import torch
from torch import Tensor

from fastddpm.kernels.layout import (
    as_float32,
    as_float32_reference,
    dense,
    image_format,
    is_channels_last,
    place_of,
    plane_of,
    same_layout,
)
from fastddpm.kernels.philox import check_num_elements, keyed_normals, philox_normal
from fastddpm.kernels.triton_or_not import jit, launch, num_chunks, operator, tl


def add_noise_reference(
    x_0: Tensor,
    timesteps: Tensor,
    table: Tensor,
    noise: Tensor | None,
    positions: Tensor | None,
    seed: int,
    stream: int,
    draw: int,
    dtype: torch.dtype,
    channels_last: bool,
) -> tuple[Tensor, Tensor]:
    """Sample x_t ~ q(x_t | x_0) for one timestep per image.

    Args:
        x_0: (B, ...), uint8 pixels, which stand for x / 127.5 - 1, or float.
        timesteps: (B,), int64, columns of the table.
        table: (2, T), float32: sqrt(abar_t) and sqrt(1 - abar_t).
        noise: shape of `x_0`, float; or None: the keyed normals of
        positions: (B,), int64, and of
        seed, stream, draw: see `kernels/philox.py`; the seed as a signed number.
        dtype: of x_t; it is computed in float32.
        channels_last: memory format of x_t, (B, C, H, W); False: contiguous.
    Returns: x_t; and the keyed noise, float32, in the memory format of x_t, or nothing (0 elements) where it was given.
    """
    wanted_format = image_format(x_0.shape, channels_last)
    made = x_0.new_empty(0, dtype=torch.float32)
    if noise is None:
        assert positions is not None
        flat = philox_normal(positions, x_0.shape[1:].numel(), seed=seed, stream=stream, draw=draw)
        noise = made = flat.view(x_0.shape).contiguous(memory_format=wanted_format)
    signal, spread = table[:, timesteps].view(2, -1, *[1] * (x_0.dim() - 1))
    x_t = signal * as_float32_reference(x_0) + spread * noise.float()
    return x_t.to(dtype, memory_format=wanted_format), made


@jit(do_not_specialize=["seed", "stream", "draw"])
def add_noise_kernel(
    x_0_ptr,  # (B, C, H, W), uint8 or float
    noise_ptr,  # (B, C, H, W), float; None: keyed
    positions_ptr,  # (B,), int64; None: given
    timesteps_ptr,  # (B,), int64
    table_ptr,  # (2, T), float32
    x_t_ptr,  # (B, C, H, W), float
    made_ptr,  # (B, C, H, W), float32: the keyed noise; None: given
    num_elements,
    num_pixels,
    num_channels,
    num_timesteps,
    seed,
    stream,
    draw,
    X_0_CHANNELS_LAST: tl.constexpr,
    NOISE_CHANNELS_LAST: tl.constexpr,
    X_T_CHANNELS_LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A chunk of one image; without keyed noise and in one memory format, in whatever order it lies."""
    chunks = tl.cdiv(num_elements, BLOCK)
    image, chunk = (tl.program_id(0) // chunks).to(tl.int64), tl.program_id(0) % chunks
    element = chunk * BLOCK + tl.arange(0, BLOCK)
    inside = element < num_elements
    first = image * num_elements
    x_0_place = first + place_of(element, num_pixels, num_channels, X_0_CHANNELS_LAST)
    x_t_place = first + place_of(element, num_pixels, num_channels, X_T_CHANNELS_LAST)
    x_0 = as_float32(tl.load(x_0_ptr + x_0_place, mask=inside, other=0))
    if noise_ptr is None:
        noise = keyed_normals(chunk, tl.load(positions_ptr + image), draw, seed, stream, BLOCK)
        tl.store(made_ptr + x_t_place, noise, mask=inside)
    else:
        noise_place = first + place_of(element, num_pixels, num_channels, NOISE_CHANNELS_LAST)
        noise = tl.load(noise_ptr + noise_place, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(timesteps_ptr + image)
    x_t = tl.fma(tl.load(table_ptr + t), x_0, tl.load(table_ptr + num_timesteps + t) * noise)
    tl.store(x_t_ptr + x_t_place, x_t.to(x_t_ptr.dtype.element_ty), mask=inside)


def launch_add_noise(x_0, timesteps, table, noise, positions, seed, stream, draw, dtype, channels_last):
    num_elements, layout = x_0.shape[1:].numel(), image_format(x_0.shape, channels_last)
    check_num_elements(num_elements)
    x_0, noise = dense(x_0), None if noise is None else dense(noise)
    x_t, made = (
        torch.empty(x_0.shape, dtype=kind, device=x_0.device, memory_format=layout) for kind in (dtype, torch.float32)
    )
    any_order = noise is not None and same_layout(x_0, noise, x_t)
    launch(
        add_noise_kernel, x_t, len(x_0) * num_chunks(num_elements),
        x_0, noise, None if positions is None else positions.contiguous(), timesteps.contiguous(), table.contiguous(),
        x_t, made if noise is None else None, num_elements, *plane_of(x_0), table.shape[1], seed, stream, draw,
        X_0_CHANNELS_LAST=not any_order and is_channels_last(x_0),
        NOISE_CHANNELS_LAST=not any_order and noise is not None and is_channels_last(noise),
        X_T_CHANNELS_LAST=not any_order and is_channels_last(x_t),
    )  # fmt: skip
    return x_t, made if noise is None else made.new_empty(0)


add_noise = operator("add_noise", add_noise_reference, launch_add_noise)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x_0, timesteps, table, noise, *_ = inputs
    ctx.save_for_backward(timesteps, table)
    ctx.x_0_dtype = x_0.dtype
    ctx.noise_dtype = None if noise is None else noise.dtype


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    timesteps, table = ctx.saved_tensors
    signal, spread = table[:, timesteps].view(2, -1, *[1] * (grad.dim() - 1))
    to_x_0 = (signal * grad.float()).to(ctx.x_0_dtype) if ctx.x_0_dtype.is_floating_point else None
    to_noise = None if ctx.noise_dtype is None else (spread * grad.float()).to(ctx.noise_dtype)
    return to_x_0, None, None, to_noise, *[None] * 6


add_noise.register_autograd(_backward, setup_context=_setup_context)
