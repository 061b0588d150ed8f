"""The models that draw: one trained on each labelled set alone, and one on all images, without their labels."""

from pathlib import Path
from typing import Any

from fastddpm.config import DataConfig, RunConfig, dotted, load_config
from fastddpm.pipelines.steps import set_timesteps_from
from fastddpm.schedulers.named import scheduler_named
from fastddpm.studies.augmentation.settings import GainConfig
from fastddpm.studies.augmentation.subsets import Set
from fastddpm.training import train
from fastddpm.training.build_network import build_scheduler
from fastddpm.training.folder import is_finished


def file_of(config: GainConfig, chosen: Set) -> Path:
    """File of a labelled set's images."""
    return Path(config.output_dir) / "labelled" / f"{chosen.name}.npz"


def data_of(config: GainConfig) -> DataConfig:
    """The held-out images, and those to learn from; the model of all is trained on the latter."""
    return load_config(None, _of_everything(config)).data


def run_of(config: GainConfig, chosen: Set) -> RunConfig:
    """The training of a labelled set's own model, which learns its labels if its config says so."""
    own = {"output_dir": _folder(config, chosen.name), "data.source": str(file_of(config, chosen)),
           "data.num_held_out": 0, "seed": config.seed + chosen.repeat}  # fmt: skip
    return load_config(config.generator.config, {**_shared(config), **own})


def run_of_all(config: GainConfig) -> RunConfig | None:
    """The training of the model of all images; None: there is none."""
    if config.generator.of_all is None:
        return None
    own = {**_of_everything(config), "output_dir": _folder(config, "all"), "model.class_conditional": False,
           "sample.guidance_scale": 1}  # fmt: skip
    return load_config(config.generator.config, {**_shared(config), **dotted(config.generator.of_all), **own})


def train_generator(run: RunConfig) -> None:
    """Train to the end, or on from where it was stopped; nothing, if it has ended."""
    if not is_finished(Path(run.output_dir)):
        train(run)


def _of_everything(config: GainConfig) -> dict[str, Any]:
    settings = {f"data.{name}": value for name, value in dotted(config.data).items()}
    own = {"data.source": config.source, "data.num_held_out": config.num_held_out,
           "data.num_images": config.num_unlabelled, "seed": config.seed}  # fmt: skip
    return {"output_dir": config.output_dir, **settings, **own}


def _shared(config: GainConfig) -> dict[str, Any]:
    threads = {} if config.num_threads is None else {"train.num_threads": config.num_threads}
    return {**threads, **dotted(config.generator.overrides)}


def _folder(config: GainConfig, name: str) -> str:
    return str(Path(config.output_dir) / "generators" / name)


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
    least = config.num_labelled[0]
    own, of_all = run_of(config, Set(least, 0)), run_of_all(config)
    if own.train.batch_size > least:
        raise ValueError(
            f"generator.overrides: train.batch_size is {own.train.batch_size} and the smallest labelled set has "
            f"{least} images; use --generator.overrides.train.batch_size {least} or less, or raise num_labelled"
        )
    starts = sorted({start for size in config.num_labelled for start, _ in config.drawing.points(size)})
    for run in (own,) if of_all is None else (own, of_all):
        solver = scheduler_named(config.drawing.scheduler, build_scheduler(run))
        for start in starts:
            set_timesteps_from(solver, start, config.drawing.num_inference_steps)
