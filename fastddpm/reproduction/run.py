"""`fastddpm reproduce`: train both models, draw the figures, measure the claims, write the report."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from filelock import FileLock, Timeout

from fastddpm.config import (
    DCGANConfig,
    ReproductionConfig,
    RunConfig,
    differences,
    load_config,
    load_config_of,
    to_yaml,
)
from fastddpm.data import load_splits
from fastddpm.evaluation.fidelity import scores
from fastddpm.evaluation.similarity import MIN_SIDE
from fastddpm.reproduction import pages
from fastddpm.reproduction.claims import measure
from fastddpm.reproduction.drawings import draw
from fastddpm.reproduction.lengths import lengths
from fastddpm.reproduction.opponents import find_opponent
from fastddpm.scoring.evaluate import MAX_TRAINING, look_for_copies
from fastddpm.scoring.judge import save_judge, train_judge
from fastddpm.scoring.sets import Chosen, choose
from fastddpm.scoring.spaces import FeatureSpace
from fastddpm.training import train
from fastddpm.training.about import device_name, versions
from fastddpm.training.environment import borrowed_process, join_processes

STAGES = ("speed of training", "the DDPM", "the judge", "the DCGAN", "pictures", "claims")


def reproduce(config: ReproductionConfig) -> Path:
    """Train, draw, measure, report; every process of a launcher calls it. Started again, it goes on where it was.

    Returns: the folder with report.html and report.json.
    Raises: ValueError: images or settings that do not fit; another reproduction in the folder.
    """
    folder = Path(config.output_dir)
    with borrowed_process():
        state = join_processes(config.num_threads, None)
        lock = _claimed(config, folder) if state.is_main_process else None
        state.wait_for_everyone()
        try:
            _reproduce(config, folder, state)
        finally:
            if lock is not None:
                lock.release()
    return folder


def _reproduce(config: ReproductionConfig, folder: Path, state: PartialState) -> None:
    ddpm, dcgans = runs_of(config)
    run, seed = Path(ddpm.output_dir), config.seed

    with state.main_process_first():  # it reads the source in
        _check_size(load_splits(ddpm.data, seed=seed, show_progress=state.is_main_process).train.image_shape)

    _say(state, 1, f"{config.budget} for each model")
    named: dict[str, RunConfig | DCGANConfig] = {"ddpm": ddpm}
    named |= {f"dcgan-{name}": other for name, other in dcgans.items()}
    found = lengths(folder / "lengths.json", named, config.budget_seconds)
    state.wait_for_everyone()

    _say(state, 2, f"{found['ddpm'].num_images_seen:,} images")
    if not (run / "samples.png").exists():  # what a finished run draws last
        length = dataclasses.replace(ddpm.train, num_images_seen=found["ddpm"].num_images_seen)
        train(dataclasses.replace(ddpm, train=length))

    _say(state, 3, config.features or "trained on held-out images")
    held_out = choose(f"{run}:held_out", ddpm.data.num_held_out, seed=seed)
    reals = held_out.images[: config.measure.num_reals]
    if state.is_main_process and not (folder / "reals.npz").exists():
        _keep(reals, folder / "reals.npz")
    judge, num_judging = _judge(config, held_out, folder, state)
    space = FeatureSpace(judge, held_out.image_shape, state)
    of_reals = space.of_reals(reals, "reals")

    _say(state, 4, f"{len(dcgans)} ways to train it, {config.dcgan.trial:.0%} of the budget each, then the best one")
    opponent = find_opponent(
        config, dcgans, {name: found[f"dcgan-{name}"] for name in dcgans}, folder,
        lambda images: scores(space.of(images, "samples"), of_reals, resamples=0).fid,
    )  # fmt: skip

    _say(state, 5, "samples, variations, blends")
    drawings = draw(config, run, folder / "reals.npz", folder, opponent.samples)

    _say(state, 6, "numbers and the report")
    training = choose(f"{run}:train", MAX_TRAINING, seed=seed)
    measured = measure(config, drawings, of_reals, lambda images: space.of(images, "features"), space.classes)
    if state.is_main_process:
        about = pages.About(
            config=config, ddpm=run, num_training=training.facts["of"], opponent=opponent,
            features={"name": space.name, "sha256": space.sha256, "description": space.description, **space.facts},
            num_judging=num_judging, device=device_name(state.device), versions=versions(),
        )  # fmt: skip
        copies = look_for_copies(drawings.samples, training.images, reals, state.device)
        pages.write(folder, about, drawings, measured, copies)
        print("\n".join(pages.lines_of(measured)))
        print(f"report: {folder / 'report.html'}")
    state.wait_for_everyone()


def runs_of(config: ReproductionConfig) -> tuple[RunConfig, dict[str, DCGANConfig]]:
    """The DDPM's training and the DCGAN's, by name of its settings; lengths are those of their files."""
    folder = Path(config.output_dir)
    shared: dict[str, Any] = {f"data.{name}": value for name, value in config.data.items()}
    shared |= {"data.source": config.source, "seed": config.seed}
    if config.num_threads is not None:
        shared["train.num_threads"] = config.num_threads
    own = dotted(config.ddpm.overrides)
    ddpm = load_config(config.ddpm.config, {**shared, **own, "output_dir": str(folder / "ddpm")})
    dcgans = {
        name: load_config_of(
            DCGANConfig,
            config.dcgan.config,
            {**shared, **dotted(settings), "output_dir": str(folder / f"dcgan-{name}")},
        )
        for name, settings in config.dcgan.settings.items()
    }
    return ddpm, dcgans


def _check_size(image_shape: tuple[int, int, int]) -> None:
    if min(image_shape[1:]) < MIN_SIDE:
        raise ValueError(
            f"images are {image_shape[2]}x{image_shape[1]}; their structural similarity needs at least "
            f"{MIN_SIDE}x{MIN_SIDE}"
        )


def dotted(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"width": 32}}, as it comes of the command line, is {"train.width": 32}."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inside = dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        found |= inside
    return found


def _claimed(config: ReproductionConfig, folder: Path) -> FileLock:
    """The folder, for this reproduction.  Raises: ValueError: another one is there, or runs."""
    runs_of(config)  # refuses settings that do not fit, before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{folder} is in use by a running job; wait for it, or choose another --output_dir") from None
    kept = folder / "config.yaml"
    if kept.exists():
        changed = differences(load_config_of(ReproductionConfig, kept), config)
        refused = [f"{name} was {old!r}, now {new!r}" for name, old, new, _ in changed if name not in HARMLESS]
        if refused:
            lock.release()
            raise ValueError(
                f"{folder} holds a reproduction with other settings: {'; '.join(refused)}; go on with those, or choose "
                f"another --output_dir"
            )
    temporary = folder / "config.yaml.tmp"
    temporary.write_text(to_yaml(config))
    os.replace(temporary, kept)
    return lock


HARMLESS = ("output_dir", "num_threads", "title")


def _judge(config: ReproductionConfig, held_out: Chosen, folder: Path, state: PartialState) -> tuple[Path, int]:
    """The file of the network that makes features, and how many of the held-out images trained it."""
    if config.features is not None:
        return Path(config.features), 0
    path, first = folder / "judge.safetensors", config.measure.num_reals
    count = len(held_out.images) - first
    if state.is_main_process and not path.exists():
        labels = None if held_out.labels is None else held_out.labels[first:]
        save_judge(
            train_judge(
                held_out.images[first:], labels, held_out.label_names, min(config.measure.num_judged, count // 4),
                epochs=config.measure.judge_epochs, num_steps=config.measure.judge_steps, seed=config.seed,
                device=state.device, show_progress=state.is_main_process,
            ),
            path,
        )  # fmt: skip
    state.wait_for_everyone()
    return path, count


def _keep(images: np.ndarray, path: Path) -> None:
    """As a source that `fastddpm vary` takes."""
    temporary = path.with_name(f".{path.name}")
    np.savez(temporary, images=images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1))
    os.replace(temporary, path)


def _say(state: PartialState, stage: int, what: str) -> None:
    if state.is_main_process:
        print(f"[{stage}/{len(STAGES)}] {STAGES[stage - 1]}: {what}", flush=True)
