"""Which timesteps a picture goes through, and how a scheduler takes a step of it."""

from typing import Any

import torch
from torch import Tensor

from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.portable import TakeStep, takes, takes_generator
from fastddpm.schedulers.tables import trailing_timesteps


def set_timesteps_from(scheduler: Any, start_timestep: int, num_inference_steps: int | None) -> list[Any]:
    """Set a scheduler to take `num_inference_steps` steps from `start_timestep` to x_0.

    Args:
        start_timestep: how many timesteps are left: 300 starts at index 299.
        num_inference_steps: steps really taken; None: all of them.
    Returns: the descending timesteps, on the host.
    Raises: ValueError: out of range, or a scheduler whose own grid has no such steps (the message names those it has).
    """
    num_train = scheduler.config.num_train_timesteps
    if not 1 <= start_timestep <= num_train:
        raise ValueError(f"start_timestep is {start_timestep}; it counts denoising steps, from 1 to {num_train}")
    steps = start_timestep if num_inference_steps is None else num_inference_steps
    if not 1 <= steps <= start_timestep:
        raise ValueError(
            f"num_inference_steps is {steps}; from start_timestep {start_timestep} it must be 1 to {start_timestep}"
        )
    if start_timestep == num_train:
        scheduler.set_timesteps(steps)
        return scheduler.timesteps.tolist()
    if takes(scheduler.set_timesteps, "timesteps"):
        scheduler.set_timesteps(timesteps=trailing_timesteps(start_timestep, steps))
        return scheduler.timesteps.tolist()
    return _tail_of_grid(scheduler, start_timestep, steps)


def _tail_of_grid(scheduler: Any, start: int, steps: int) -> list[Any]:
    """The end of an even grid over the whole chain, for schedulers that take no list of timesteps (DDIM)."""
    num_train = scheduler.config.num_train_timesteps
    if num_train * steps % start == 0 and num_train % (num_train * steps // start) == 0:
        scheduler.set_timesteps(num_train * steps // start)
        tail = [t for t in scheduler.timesteps.tolist() if t < start]
        if len(tail) == steps:
            return tail
    possible = [n for n in range(1, start + 1) if start % n == 0 and num_train % (start // n) == 0]
    near = sorted(sorted(possible, key=lambda n: abs(n - steps))[:3])
    raise ValueError(
        f"{type(scheduler).__name__} has no {steps} steps from start_timestep {start} on its even grid of "
        f"{num_train}; use num_inference_steps {', '.join(str(n) for n in near)}"
    )


def take_step_of(scheduler: Any, noise: NoiseSource, model_dtype: torch.dtype, device: torch.device) -> TakeStep:
    """A step of a scheduler for some images: its `reverse_step` where it has one, else its `step`."""
    if hasattr(scheduler, "reverse_step"):
        seeds = None if noise.seeds is None else noise.seeds.to(device)

        def fused(model_output: Tensor, t: Any, x_t: Tensor) -> tuple[Tensor, Tensor]:
            return scheduler.reverse_step(
                model_output, t, x_t, positions=seeds, generator=noise.generator, model_dtype=model_dtype
            )

        return fused
    options = {"generator": noise.generators()} if takes_generator(scheduler) else {}

    def stock(model_output: Tensor, t: Any, x_t: Tensor) -> tuple[Tensor, Tensor]:
        x_prev = scheduler.step(model_output.float(), t, x_t, **options).prev_sample
        return x_prev, x_prev.to(model_dtype)

    return stock
