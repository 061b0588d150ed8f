"""The models that draw: one trained on each labelled set alone, and one on all images, without their labels."""

from pathlib import Path
from typing import Any

from fastddpm.config import DataConfig, GainConfig, RunConfig, dotted, load_config
from fastddpm.gain.subsets import Set
from fastddpm.training import train
from fastddpm.training.folder import is_finished


def file_of(config: GainConfig, chosen: Set) -> Path:
    """Where the images of a labelled set are."""
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
    own = {**_of_everything(config), "output_dir": _folder(config, "all"), "model.class_conditional": False}
    return load_config(
        config.generator.config,
        {**_shared(config), **dotted(config.generator.of_all), **own, "sample.guidance_scale": 1},
    )


def train_generator(run: RunConfig) -> None:
    """To its end, or on from where it was stopped; nothing, if it has ended."""
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
