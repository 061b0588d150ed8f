"""What can be known before hours of training: whether generators, starts and steps fit the images."""

from fastddpm.config import GainConfig, RunConfig
from fastddpm.gain.generators import run_of, run_of_all
from fastddpm.gain.subsets import Set
from fastddpm.pipelines.steps import set_timesteps_from
from fastddpm.schedulers.named import scheduler_named
from fastddpm.training.network import build_scheduler

LEAST_SIDE = 8
"""pixels: the classifier halves images three times"""


def check(config: GainConfig, image_shape: tuple[int, int, int]) -> None:
    """Raises: ValueError: generators whose config does not fit, or that see more images a step than there are labelled
    ones; starts or steps that they or the solver do not have; images too small."""
    if min(image_shape[1:]) < LEAST_SIDE:
        raise ValueError(
            f"images are {image_shape[2]}x{image_shape[1]}; the classifier needs at least {LEAST_SIDE}x{LEAST_SIDE}: "
            f"use larger ones"
        )
    own, of_all = run_of(config, Set(config.num_labelled[0], 0)), run_of_all(config)
    least = config.num_labelled[0]
    if own.train.batch_size > least:
        raise ValueError(
            f"generator.overrides: train.batch_size is {own.train.batch_size} and the smallest labelled set has "
            f"{least} images; use --generator.overrides.train.batch_size {least} or less, or raise num_labelled"
        )
    for run in (own,) if of_all is None else (own, of_all):
        _check_starts(config, run)


def _check_starts(config: GainConfig, run: RunConfig) -> None:
    solver = scheduler_named(config.drawing.scheduler, build_scheduler(run))
    for start in sorted({start for size in config.num_labelled for start, _ in config.drawing.points(size)}):
        set_timesteps_from(solver, start, config.drawing.num_inference_steps)
