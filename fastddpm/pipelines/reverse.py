"""The reverse process: the one loop that every pipeline runs.  (Ho et al. 2020, Alg. 2; the paper's Eq. 4)"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fastddpm.pipelines.noise import NoiseSource
from fastddpm.schedulers.fused_ddpm import trailing_timesteps

StepCallback = Callable[[int, Any, Tensor], Tensor | None]
"""(index of the step, timestep, x_{t-1}) -> another x_{t-1}, or None to keep it"""


@torch.no_grad()
def reverse(
    unet: Any,
    scheduler: Any,
    x_t: Tensor,
    timesteps: Iterable[Any],
    noise: NoiseSource,
    *,
    class_labels: Tensor | None = None,
    on_step: StepCallback | None = None,
) -> Tensor:
    """Denoise x_t through the given timesteps.

    Args:
        unet: predicts from (x_t, t, class_labels); its dtype is the dtype it is fed.
        scheduler: its `reverse_step` is used when it has one, else its `step`.
        x_t: (B, C, H, W), float32.
        timesteps: descending; what `choose_timesteps` returned.
        noise: of the images of this batch.
        class_labels: (B,), int64.
    Returns: x_0, (B, C, H, W), float32; kept in float32 all along, whatever the model's dtype.
    """
    take_step = _take_step(scheduler, noise, x_t.device)
    model_input = x_t.to(unet.dtype)
    for index, t in enumerate(timesteps):
        model_output = unet(_scaled(scheduler, model_input, t), t, class_labels=class_labels).sample
        x_t, model_input = take_step(model_output, t, x_t, unet.dtype)
        if on_step is not None and (replaced := on_step(index, t, x_t)) is not None:
            x_t, model_input = replaced, replaced.to(unet.dtype)
    return x_t


def choose_timesteps(scheduler: Any, start_timestep: int | None, num_inference_steps: int | None) -> list[Any]:
    """Set the scheduler to take `num_inference_steps` steps from `start_timestep` to x_0.

    Args:
        start_timestep: how many timesteps are left: 300 starts at index 299; None: all of the chain.
        num_inference_steps: steps really taken; None: all of them.
    Returns: the descending timesteps.
    Raises: ValueError: out of range, or a scheduler whose own grid has no such steps (the message names those it has).
    """
    num_train = scheduler.config.num_train_timesteps
    start = num_train if start_timestep is None else start_timestep
    if not 1 <= start <= num_train:
        raise ValueError(f"start_timestep is {start}; it counts denoising steps, from 1 to {num_train}")
    steps = start if num_inference_steps is None else num_inference_steps
    if not 1 <= steps <= start:
        raise ValueError(f"num_inference_steps is {steps}; from start_timestep {start} it must be 1 to {start}")
    if start == num_train:
        scheduler.set_timesteps(steps)
        return _as_numbers(scheduler.timesteps)
    if "timesteps" in inspect.signature(scheduler.set_timesteps).parameters:
        scheduler.set_timesteps(timesteps=trailing_timesteps(start, steps))
        return _as_numbers(scheduler.timesteps)
    return _tail_of_grid(scheduler, start, steps)


def _tail_of_grid(scheduler: Any, start: int, steps: int) -> list[Any]:
    """The end of an even grid over the whole chain, for schedulers that take no list of timesteps (DDIM)."""
    num_train = scheduler.config.num_train_timesteps
    if num_train * steps % start == 0 and num_train % (num_train * steps // start) == 0:
        scheduler.set_timesteps(num_train * steps // start)
        tail = [t for t in _as_numbers(scheduler.timesteps) if t < start]
        if len(tail) == steps:
            return tail
    possible = [n for n in range(1, start + 1) if start % n == 0 and num_train % (start // n) == 0]
    near = sorted(sorted(possible, key=lambda n: abs(n - steps))[:3])
    raise ValueError(
        f"{type(scheduler).__name__} has no {steps} steps from start_timestep {start} on its even grid of "
        f"{num_train}; use num_inference_steps {', '.join(str(n) for n in near)}"
    )


def _as_numbers(timesteps: Tensor) -> list[Any]:
    """On the host, once, so that the loop needs no transfer from the device."""
    return timesteps.tolist()


def _scaled(scheduler: Any, model_input: Tensor, t: Any) -> Tensor:
    return model_input if hasattr(scheduler, "reverse_step") else scheduler.scale_model_input(model_input, t)


def _take_step(scheduler: Any, noise: NoiseSource, device: torch.device) -> Callable[..., tuple[Tensor, Tensor]]:
    if hasattr(scheduler, "reverse_step"):
        seeds = None if noise.seeds is None else noise.seeds.to(device)

        def fused(model_output: Tensor, t: Any, x_t: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
            return scheduler.reverse_step(
                model_output, t, x_t, positions=seeds, generator=noise.generator, model_dtype=dtype
            )

        return fused
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    options = {"generator": noise.generators()} if takes_generator else {}

    def stock(model_output: Tensor, t: Any, x_t: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        x_prev = scheduler.step(model_output.float(), t, x_t, **options).prev_sample
        return x_prev, x_prev.to(dtype)

    return stock
