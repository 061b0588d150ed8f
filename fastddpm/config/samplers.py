"""Which solvers of the reverse process a setting may name, and how many steps each can take."""

from typing import Literal

SamplerName = Literal["ddpm", "ddim", "dpmsolver++"]


def check_steps(sampler: str | None, num_train: int, steps: int, setting: str) -> None:
    """Raises: ValueError: DDIM and a number of steps that does not divide T. diffusers' DDIM goes down by T // steps,
    which then is not the distance of its timesteps.

    Args:
        num_train: T.
        setting: how the number is called where it was set.
    """
    if sampler != "ddim" or (1 <= steps <= num_train and num_train % steps == 0):
        return
    divisors = [n for n in range(1, num_train + 1) if num_train % n == 0]
    below, above = (
        max((n for n in divisors if n < steps), default=1),
        min((n for n in divisors if n > steps), default=1),
    )
    near = " or ".join(str(n) for n in sorted({below, above} - {1}) or [1])
    raise ValueError(
        f"{setting} is {steps}; ddim takes even steps over {num_train} timesteps, so it must divide {num_train}: use "
        f"{near}, or dpmsolver++ or ddpm, which take any number"
    )
