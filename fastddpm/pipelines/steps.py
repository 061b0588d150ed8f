"""Timesteps that a picture goes through, and a scheduler's step from one to the next."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.portable import TakeStep, begin, check_scheduler, diffusers_step, takes
from fastddpm.schedulers.tables import trailing_timesteps


def set_timesteps_from(scheduler: Any, start_timestep: int, num_inference_steps: int | None) -> list[Any]:
    """Set a scheduler to take `num_inference_steps` steps from `start_timestep` to x_0.

    Args:
        start_timestep: how many timesteps are left: 300 starts at index 299.
        num_inference_steps: steps really taken; None: all of them.
    Returns: the descending timesteps, on the host.
    Raises: ValueError: out of range, or a scheduler whose own grid has no such steps (the message names those it has).
    """
    check_scheduler(scheduler)
    num_train = scheduler.config.num_train_timesteps
    if not 1 <= start_timestep <= num_train:
        raise ValueError(f"start_timestep is {start_timestep}; it counts denoising steps, from 1 to {num_train}")
    steps = start_timestep if num_inference_steps is None else num_inference_steps
    if not 1 <= steps <= start_timestep:
        raise ValueError(
            f"num_inference_steps is {steps}; from start_timestep {start_timestep} it must be 1 to {start_timestep}"
        )
    if start_timestep == num_train:
        set_even_timesteps(scheduler, steps)
    elif _can_begin_at_a_level(scheduler):
        _set_levels_from(scheduler, start_timestep, steps)
    elif spacing := _spacing_of_levels(scheduler):
        raise ValueError(
            f"{type(scheduler).__name__} with {spacing} spaces noise levels over the whole chain only; use it without, "
            f"or start_timestep {num_train}"
        )
    elif takes(scheduler.set_timesteps, "timesteps"):
        scheduler.set_timesteps(timesteps=trailing_timesteps(start_timestep, steps))
    else:
        return _tail_of_grid(scheduler, start_timestep, steps)
    begin(scheduler)
    return scheduler.timesteps.tolist()


def _spacing_of_levels(scheduler: Any) -> str | None:
    """The option by which its grid is one of noise levels and not of timesteps; None: there is none."""
    names = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
    return next((name for name in names if scheduler.config.get(name)), None)


def _can_begin_at_a_level(scheduler: Any) -> bool:
    """True if its grid is one of noise levels that may begin anywhere (Karras et al. 2022)."""
    return _spacing_of_levels(scheduler) == "use_karras_sigmas" and "sigma_max" in scheduler.config


def _set_levels_from(scheduler: Any, start_timestep: int, steps: int) -> None:
    alpha_bar = float(scheduler.alphas_cumprod[start_timestep - 1])
    highest = scheduler.config.sigma_max
    scheduler.register_to_config(sigma_max=((1 - alpha_bar) / alpha_bar) ** 0.5)
    try:
        scheduler.set_timesteps(steps)
    finally:
        scheduler.register_to_config(sigma_max=highest)


def set_even_timesteps(scheduler: Any, num_inference_steps: int) -> None:
    """Set a scheduler to that many steps over the whole chain.

    diffusers' "trailing" counts in floats, and for 62 numbers of 1 to 1000 takes a step too many, to t = -1: after it
    DPM-Solver++ stops short of x_0. So it is given a list that is counted in integers.
    """
    is_trailing = scheduler.config.get("timestep_spacing") == "trailing" and not _spacing_of_levels(scheduler)
    if type(scheduler) is DPMSolverMultistepScheduler and is_trailing:
        num_train = scheduler.config.num_train_timesteps
        scheduler.set_timesteps(timesteps=trailing_timesteps(num_train, num_inference_steps))
    else:
        scheduler.set_timesteps(num_inference_steps)


def nearest_steps(scheduler: Any, start_timestep: int, num_inference_steps: int) -> int:
    """The number of steps nearest to the one asked for that `set_timesteps_from` can set from there."""
    steps = min(num_inference_steps, start_timestep)
    is_whole = start_timestep == scheduler.config.num_train_timesteps
    if is_whole or _can_begin_at_a_level(scheduler) or takes(scheduler.set_timesteps, "timesteps"):
        return steps
    return next(_possible_steps(scheduler, start_timestep, steps), steps)


def _possible_steps(scheduler: Any, start: int, steps: int) -> Iterator[int]:
    """Numbers of steps that a scheduler's own grids have below `start`, the nearest to `steps` first."""
    by_nearness = sorted(range(1, start + 1), key=lambda n: abs(n - steps))
    return (n for n in by_nearness if _try_grid(scheduler, start, n) is not None)


def _tail_of_grid(scheduler: Any, start: int, steps: int) -> list[Any]:
    """The end of an even grid over the whole chain, for schedulers that take no list of timesteps (DDIM)."""
    if (tail := _try_grid(scheduler, start, steps)) is not None:
        return tail
    near = sorted(itertools.islice(_possible_steps(scheduler, start, steps), 3))
    if not near:
        raise ValueError(
            f"{type(scheduler).__name__} cannot start at timestep {start}: its steps are not each a whole timestep on "
            "its own; use DDIMScheduler, DPMSolverMultistepScheduler or FusedDDPMScheduler"
        )
    raise ValueError(
        f"{type(scheduler).__name__} has no {steps} steps from start_timestep {start} on its own grid of "
        f"{scheduler.config.num_train_timesteps}; use num_inference_steps {', '.join(str(n) for n in near)}"
    )


def _try_grid(scheduler: Any, start: int, steps: int) -> list[int] | None:
    """The last `steps` timesteps of an even grid, the first of them below `start`; None: they are not as many."""
    num_train = scheduler.config.num_train_timesteps
    if num_train * steps % start or num_train % (num_train * steps // start):
        return None
    try:
        scheduler.set_timesteps(num_train * steps // start)
    except ValueError:  # PNDM knows no fewer steps than four
        return None
    grid = scheduler.timesteps
    if grid.is_floating_point() or not bool((grid[1:] < grid[:-1]).all()):  # noise levels, or Runge-Kutta's half steps
        return None
    tail = [t for t in grid.tolist() if t < start]
    return tail if len(tail) == steps else None


def take_step_of(
    scheduler: Any, noise: NoiseSource, model_dtype: torch.dtype, device: torch.device, eta: float | None = None
) -> TakeStep:
    """A step of a scheduler for some images: its `reverse_step` where it has one, else its `step`.

    Raises: ValueError: an eta that it does not take.
    """
    if not hasattr(scheduler, "reverse_step") or eta is not None:
        return diffusers_step(scheduler, noise.generators(), model_dtype, eta)
    seeds = None if noise.seeds is None else noise.seeds.to(device, non_blocking=True)

    def take_step(model_output: Tensor, t: Any, x_t: Tensor) -> tuple[Tensor, Tensor]:
        return scheduler.reverse_step(
            model_output, t, x_t, positions=seeds, generator=noise.generator, model_dtype=model_dtype
        )

    return take_step
