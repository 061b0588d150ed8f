"""Checks before hours of training: the images and the features are there and fit."""

import logging
from pathlib import Path
from typing import Any

from accelerate import PartialState

from fastddpm.config import RunConfig, dotted, load_config, load_config_of
from fastddpm.data import load_splits
from fastddpm.measures.similarity import MIN_SIDE
from fastddpm.measures.unlabelled_judge import MIN_SIDE as LEAST_SIDE
from fastddpm.studies.dcgan.settings import DCGANConfig
from fastddpm.studies.paper.settings import ReproductionConfig
from fastddpm.verbs.evaluate.feature_space import FeatureSpace


def runs_of(config: ReproductionConfig) -> tuple[RunConfig, dict[str, DCGANConfig]]:
    """The DDPM's training and the DCGAN's, by name of its settings; lengths are those of their files."""
    folder = Path(config.output_dir)
    shared: dict[str, Any] = {f"data.{name}": value for name, value in config.data.items()}
    shared |= {"data.source": config.source, "seed": config.seed}
    if config.num_threads is not None:
        shared["train.num_threads"] = config.num_threads
    own = {**dotted(config.ddpm.overrides), "output_dir": str(folder / "ddpm")}
    ddpm = load_config(config.ddpm.config, {**shared, **own})
    dcgans = {}
    for name, settings in config.dcgan.settings.items():
        own = {**dotted(settings), "output_dir": str(folder / f"dcgan-{name}")}
        dcgans[name] = load_config_of(DCGANConfig, config.dcgan.config, {**shared, **own})
    return ddpm, dcgans


def check(config: ReproductionConfig, state: PartialState) -> None:
    """Every process calls it; the main one warns.

    Raises: ValueError: settings, images or features that do not fit.
    """
    ddpm, _ = runs_of(config)
    splits = load_splits(ddpm.data, seed=config.seed, show_progress=state.is_main_process)
    shape = splits.train.image_shape
    has_classes = (splits.train.num_classes or 0) > 1
    least, what = (MIN_SIDE, "their structural similarity") if has_classes else (LEAST_SIDE, "a judge without labels")
    if min(shape[1:]) < least:
        raise ValueError(f"images are {shape[2]}x{shape[1]}; {what} needs at least {least}x{least}")
    if config.features is None:
        return
    measure = config.measure
    count = FeatureSpace(Path(config.features), shape, state).count
    fewest = min(measure.num_samples, measure.num_from_data, measure.num_reals)
    if fewest <= count and state.is_main_process:
        logging.getLogger(__name__).warning(
            "%d images are scored in %d features, too few for a FID: figures %d and %d will end as 'cannot tell'; "
            "raise measure.num_samples and measure.num_from_data above %d, and measure.num_reals to twice of that",
            fewest, count, config.figure_from_data, config.figure_of_dcgan, count,
        )  # fmt: skip
