"""The loss of each image.  (Ho et al. 2020, Eq. 14; the paper's Eq. 3)

    loss = mean over the image's elements of (prediction - target)^2
    target = noise                                          "epsilon"
             x_0                                            "sample"
             sqrt(abar_t) noise - sqrt(1 - abar_t) x_0      "v_prediction"  (Salimans & Ho 2022, App. D)

and its gradient with respect to the prediction, 2 / num_elements (prediction - target) times that of the loss. The
target is made again in the backward pass: neither it nor the difference is stored.
"""

from typing import Any

import torch
from torch import Tensor

from fastddpm.kernels.layout import (
    as_float32,
    as_float32_reference,
    dense,
    is_channels_last,
    memory_format_of,
    place_of,
    plane_of,
    same_layout,
)
from fastddpm.kernels.triton_or_not import jit, launch, num_chunks, operator, tl

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


def target_reference(x_0: Tensor, noise: Tensor, timesteps: Tensor, table: Tensor, prediction_type: str) -> Tensor:
    """Target of the model: (B, ...), float32. Arguments: see `denoising_mse_reference`."""
    if prediction_type == "epsilon":
        return noise.float()
    if prediction_type == "sample":
        return as_float32_reference(x_0)
    signal, spread = table[:, timesteps].view(2, -1, *[1] * (x_0.dim() - 1))
    return signal * noise.float() - spread * as_float32_reference(x_0)


def denoising_mse_reference(
    prediction: Tensor, x_0: Tensor, noise: Tensor, timesteps: Tensor, table: Tensor, prediction_type: str
) -> Tensor:
    """The mean squared error of each image's prediction.

    Args:
        prediction: the model's output, (B, ...), float.
        x_0: shape of `prediction`, uint8 pixels, which stand for x / 127.5 - 1, or float.
        noise: shape of `prediction`, float.
        timesteps: (B,), int64, columns of the table.
        table: (2, T), float32: sqrt(abar_t) and sqrt(1 - abar_t).
        prediction_type: one of `PREDICTION_TYPES`.
    Returns: (B,), float32.
    Raises: ValueError: another prediction type.
    """
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type is {prediction_type!r}; use one of {', '.join(PREDICTION_TYPES)}")
    target = target_reference(x_0, noise, timesteps, table, prediction_type)
    return (prediction.float() - target).square().flatten(1).mean(dim=1)


def denoising_mse_backward_reference(
    grad: Tensor, prediction: Tensor, x_0: Tensor, noise: Tensor, timesteps: Tensor, table: Tensor, prediction_type: str
) -> Tensor:
    """The gradient of the prediction, in its dtype and memory format.

    Args: those of `denoising_mse_reference`, and grad: the gradient of its result, (B,), float32.
    """
    target = target_reference(x_0, noise, timesteps, table, prediction_type)
    scale = (grad.float() * (2.0 / prediction.shape[1:].numel())).view(-1, *[1] * (prediction.dim() - 1))
    difference = prediction.float() - target
    return (difference * scale).to(prediction.dtype, memory_format=memory_format_of(prediction))


# -- Triton ---------------------------------------------------------------------------------------------------------


@jit
def difference_of_chunk(
    chunk,
    image,
    prediction_ptr,
    x_0_ptr,
    noise_ptr,
    timesteps_ptr,
    table_ptr,
    num_elements,
    num_pixels,
    num_channels,
    num_timesteps,
    PREDICTION_TYPE: tl.constexpr,
    PREDICTION_CHANNELS_LAST: tl.constexpr,
    X_0_CHANNELS_LAST: tl.constexpr,
    NOISE_CHANNELS_LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """prediction - target, 0 past the image's end; and where the prediction lies. Reads only what the target is of."""
    element = chunk * BLOCK + tl.arange(0, BLOCK)
    inside = element < num_elements
    first = image * num_elements
    place = first + place_of(element, num_pixels, num_channels, PREDICTION_CHANNELS_LAST)
    prediction = tl.load(prediction_ptr + place, mask=inside, other=0.0).to(tl.float32)
    target = tl.zeros([BLOCK], tl.float32)
    if PREDICTION_TYPE != "epsilon":
        x_0_place = first + place_of(element, num_pixels, num_channels, X_0_CHANNELS_LAST)
        target = as_float32(tl.load(x_0_ptr + x_0_place, mask=inside, other=0))
    if PREDICTION_TYPE == "v_prediction":
        t = tl.load(timesteps_ptr + image)
        target = -tl.load(table_ptr + num_timesteps + t) * target  # in Triton -x is 0 - x: not of the product
    if PREDICTION_TYPE != "sample":
        noise_place = first + place_of(element, num_pixels, num_channels, NOISE_CHANNELS_LAST)
        noise = tl.load(noise_ptr + noise_place, mask=inside, other=0.0).to(tl.float32)
        target = tl.fma(tl.load(table_ptr + t), noise, target) if PREDICTION_TYPE == "v_prediction" else noise
    return tl.where(inside, prediction - target, 0.0), place, inside


@jit
def denoising_mse_kernel(
    prediction_ptr,  # (B, C, H, W), float
    x_0_ptr,  # (B, C, H, W), uint8 or float
    noise_ptr,  # (B, C, H, W), float
    timesteps_ptr,  # (B,), int64
    table_ptr,  # (2, T), float32
    loss_ptr,  # (B, num_parts), float32
    num_elements,
    num_pixels,
    num_channels,
    num_timesteps,
    num_parts,
    PREDICTION_TYPE: tl.constexpr,
    PREDICTION_CHANNELS_LAST: tl.constexpr,
    X_0_CHANNELS_LAST: tl.constexpr,
    NOISE_CHANNELS_LAST: tl.constexpr,
    CHUNKS_A_PART: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The sum over a part of one image, over its number of elements: the same order of addition whatever the batch."""
    image, part = (tl.program_id(0) // num_parts).to(tl.int64), tl.program_id(0) % num_parts
    chunks = tl.cdiv(num_elements, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for chunk in range(part * CHUNKS_A_PART, tl.minimum((part + 1) * CHUNKS_A_PART, chunks)):
        difference, _, _ = difference_of_chunk(
            chunk, image, prediction_ptr, x_0_ptr, noise_ptr, timesteps_ptr, table_ptr, num_elements, num_pixels,
            num_channels, num_timesteps, PREDICTION_TYPE, PREDICTION_CHANNELS_LAST, X_0_CHANNELS_LAST,
            NOISE_CHANNELS_LAST, BLOCK,
        )  # fmt: skip
        total = tl.fma(difference, difference, total)
    tl.store(loss_ptr + image * num_parts + part, tl.sum(total) / num_elements.to(tl.float32))


@jit
def denoising_mse_backward_kernel(
    grad_ptr,  # (B,), float32
    prediction_ptr,  # (B, C, H, W), float
    x_0_ptr,  # (B, C, H, W), uint8 or float
    noise_ptr,  # (B, C, H, W), float
    timesteps_ptr,  # (B,), int64
    table_ptr,  # (2, T), float32
    to_prediction_ptr,  # (B, C, H, W), float
    num_elements,
    num_pixels,
    num_channels,
    num_timesteps,
    PREDICTION_TYPE: tl.constexpr,
    PREDICTION_CHANNELS_LAST: tl.constexpr,  # and its gradient
    X_0_CHANNELS_LAST: tl.constexpr,
    NOISE_CHANNELS_LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient of a chunk of one image."""
    chunks = tl.cdiv(num_elements, BLOCK)
    image, chunk = (tl.program_id(0) // chunks).to(tl.int64), tl.program_id(0) % chunks
    difference, place, inside = difference_of_chunk(
        chunk, image, prediction_ptr, x_0_ptr, noise_ptr, timesteps_ptr, table_ptr, num_elements, num_pixels,
        num_channels, num_timesteps, PREDICTION_TYPE, PREDICTION_CHANNELS_LAST, X_0_CHANNELS_LAST,
        NOISE_CHANNELS_LAST, BLOCK,
    )  # fmt: skip
    scale = tl.load(grad_ptr + image) * (2.0 / num_elements.to(tl.float32))
    tl.store(to_prediction_ptr + place, (difference * scale).to(to_prediction_ptr.dtype.element_ty), mask=inside)


CHUNKS_A_PART = 16
"""chunks that one program adds up: an image of 64x64 in colour takes one program, and the loss one launch; a larger one
takes several and one more launch, which adds their sums. With fewer there would be more launches, with more fewer
programs than a GPU has processors"""


def launch_denoising_mse(prediction, x_0, noise, timesteps, table, prediction_type):
    tensors, options = _arguments(prediction, x_0, noise, timesteps, table, prediction_type)
    num_elements = prediction.shape[1:].numel()
    num_parts = -(-num_chunks(num_elements) // CHUNKS_A_PART)
    parts = prediction.new_empty(len(prediction), num_parts, dtype=torch.float32)
    launch(
        denoising_mse_kernel, prediction, len(prediction) * num_parts, *tensors, parts, num_elements,
        *plane_of(prediction), table.shape[1], num_parts, CHUNKS_A_PART=CHUNKS_A_PART, **options,
    )  # fmt: skip
    return parts.view(-1) if num_parts == 1 else parts.sum(dim=1)


def launch_denoising_mse_backward(grad, prediction, x_0, noise, timesteps, table, prediction_type):
    tensors, options = _arguments(prediction, x_0, noise, timesteps, table, prediction_type)
    num_elements = prediction.shape[1:].numel()
    to_prediction = torch.empty_like(prediction, memory_format=memory_format_of(prediction))
    launch(
        denoising_mse_backward_kernel, prediction, len(prediction) * num_chunks(num_elements), grad.contiguous(),
        *tensors, to_prediction, num_elements, *plane_of(prediction), table.shape[1], **options,
    )  # fmt: skip
    return to_prediction


def _arguments(prediction, x_0, noise, timesteps, table, prediction_type) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    prediction, x_0, noise = dense(prediction), dense(x_0), dense(noise)
    read = {"epsilon": (noise,), "sample": (x_0,), "v_prediction": (x_0, noise)}[prediction_type]
    any_order = same_layout(prediction, *read)
    options = {
        "PREDICTION_TYPE": prediction_type,
        "PREDICTION_CHANNELS_LAST": not any_order and is_channels_last(prediction),
        "X_0_CHANNELS_LAST": not any_order and is_channels_last(x_0),
        "NOISE_CHANNELS_LAST": not any_order and is_channels_last(noise),
    }
    return (prediction, x_0, noise, timesteps.contiguous(), table.contiguous()), options


denoising_mse = operator("denoising_mse", denoising_mse_reference, launch_denoising_mse)
denoising_mse_backward = operator(
    "denoising_mse_backward", denoising_mse_backward_reference, launch_denoising_mse_backward
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.prediction_type = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    prediction, x_0, noise, timesteps, table = ctx.saved_tensors
    to_prediction = denoising_mse_backward(grad, prediction, x_0, noise, timesteps, table, ctx.prediction_type)
    _, needs_x_0, needs_noise, *_ = ctx.needs_input_grad
    if not (needs_x_0 or needs_noise):  # always so while training
        return to_prediction, *[None] * 5
    signal, spread = table[:, timesteps].view(2, -1, *[1] * (x_0.dim() - 1))
    of_noise, of_x_0 = {"epsilon": (1.0, 0.0), "sample": (0.0, 1.0), "v_prediction": (signal, -spread)}[
        ctx.prediction_type
    ]
    to_x_0 = (-of_x_0 * to_prediction.float()).to(x_0.dtype) if needs_x_0 else None
    to_noise = (-of_noise * to_prediction.float()).to(noise.dtype) if needs_noise else None
    return to_prediction, to_x_0, to_noise, None, None, None


denoising_mse.register_autograd(_backward, setup_context=_setup_context)
