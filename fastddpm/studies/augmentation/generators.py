"""The models that draw, one trained on each labelled set alone and one on all images without their labels, and their
images: `fastddpm augment`, for all t and K that are measured."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastddpm.config import DataConfig, RunConfig, dotted, load_config
from fastddpm.pipelines.steps import set_timesteps_from
from fastddpm.schedulers.named import scheduler_named
from fastddpm.studies.augmentation.learning import Lesson
from fastddpm.studies.augmentation.settings import GainConfig, Kind
from fastddpm.studies.augmentation.subsets import Set
from fastddpm.training import train
from fastddpm.training.build_network import build_scheduler
from fastddpm.training.folder import is_finished
from fastddpm.verbs.augment.augment import augment
from fastddpm.verbs.augment.request import AugmentRequest
from fastddpm.verbs.sample.formats import images_in

SEEDS_APART = 10_000_000
"""seeds between one labelled set's images and the next one's: no two are drawn from the same noise"""


Points = Mapping[int, list[tuple[int, int]]]
"""(t, K) that are measured, for each number of labelled images"""


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


def files_of(points: list[tuple[int, int]]) -> dict[int, int]:
    """Largest K of each t, of which smaller ones are a part: one file per t."""
    return dict(sorted(points))


def draw(config: GainConfig, chosen: Set, kind: Kind, run: RunConfig, start: int) -> None:
    """Draw the images of a labelled set from one t, or go on with that, or leave them as they are. What augment says is
    left out, its bar stays."""
    out, drawing = _file(config, chosen, kind, start), config.drawing
    if out.exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    request = AugmentRequest(
        model=run.output_dir, data=str(file_of(config, chosen)), out=out, mode=drawing.mode,
        num_images=_num_in_file(config, chosen, start), start_timesteps=(start,), alpha=drawing.alpha,
        any_class=drawing.any_class and kind == "own" and drawing.mode == "variations",
        scheduler=drawing.scheduler, num_inference_steps=drawing.num_inference_steps,
        micro_batch_size=drawing.micro_batch_size, precision="fp32", num_threads=config.num_threads,
        seed=config.seed + SEEDS_APART * chosen.repeat,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        augment(request)


def drawn_of(config: GainConfig, chosen: Set, kind: Kind, point: tuple[int, int], num_classes: int) -> Lesson:
    """The drawn images of a labelled set at (t, K), with their shares of labels.

    Args:
        num_classes: labels go from 0 to below it.
    """
    from pyarrow import parquet  # an extra

    start, num = point
    path, in_file = _file(config, chosen, kind, start), _num_in_file(config, chosen, start)
    images, table = images_in(path, []), parquet.read_table(path).drop_columns("image")
    assert len(table) == chosen.size * in_file, "by labelled image, as many of each"
    rows = np.arange(len(table)).reshape(chosen.size, in_file)[:, :num].ravel()
    targets = _targets(table.take(rows).to_pydict(), num_classes)
    return Lesson(torch.from_numpy(images[rows]).contiguous(), torch.from_numpy(targets))


def _file(config: GainConfig, chosen: Set, kind: Kind, start: int) -> Path:
    return Path(config.output_dir) / "drawn" / f"{chosen.name}-{kind}-{start:04d}.parquet"


def _num_in_file(config: GainConfig, chosen: Set, start: int) -> int:
    return files_of(config.drawing.points(chosen.size))[start]


def _targets(columns: dict[str, list[object]], num_classes: int) -> np.ndarray:
    """(N, num_classes), float32."""
    targets = np.zeros((len(columns["label"]), num_classes), dtype=np.float32)
    if "soft_label" in columns:
        soft = np.array(columns["soft_label"], dtype=np.float32)
        targets[:, : soft.shape[1]] = soft
    else:
        targets[np.arange(len(targets)), np.array(columns["label"])] = 1
    return targets
