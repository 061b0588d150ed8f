"""The models of the comparison, in the order in which they are trained; a finished one is not trained again."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.anomalies.sets import NUM_DIGITS, Parts, Sizes, colour_folder, rare_set
from fastddpm.config import RunConfig, load_config
from fastddpm.training import train

RARE_DIGITS = (8, 3, 5, 2, 9)
"""in the order in which they are done, should time run out; the ones a normal digit is most easily taken for"""
RARE_COUNTS = (5, 20, 50)


@dataclass(frozen=True)
class Task:
    """A model to train."""

    name: str
    """of its folder"""
    seed: int
    images_seen: int
    digits: tuple[int, ...] | None = None
    """the classes it learns; None: the colour pictures"""
    num_rare: int = 0
    """of the last digit, this many images only"""


def tasks(seeds: Sequence[int], sizes: Sizes, *, has_colour: bool) -> Iterator[Task]:
    """All of them: what the first seed needs, then the other seeds, then what makes rare images."""
    first, *others = seeds
    yield everything(first, sizes)
    yield from (one_class(digit, first, sizes) for digit in range(NUM_DIGITS))
    if has_colour:
        yield colour(first, sizes)
    yield from (one_class(digit, seed, sizes) for seed in others for digit in range(NUM_DIGITS))
    yield from (everything(seed, sizes) for seed in others)
    yield from (with_rare(digit, count, sizes) for digit in RARE_DIGITS for count in RARE_COUNTS)


def everything(seed: int, sizes: Sizes) -> Task:
    """Of all digits."""
    return Task(f"digits-seed{seed}", seed, sizes.all_seen, tuple(range(NUM_DIGITS)))


def one_class(digit: int, seed: int, sizes: Sizes) -> Task:
    """Of one digit."""
    return Task(f"digit{digit}-seed{seed}", seed, sizes.class_seen, (digit,))


def colour(seed: int, sizes: Sizes) -> Task:
    """Of the colour pictures."""
    return Task(f"colour-seed{seed}", seed, sizes.colour_seen)


def with_rare(digit: int, count: int, sizes: Sizes) -> Task:
    """Of the other digits and a few of this one."""
    others = tuple(other for other in range(NUM_DIGITS) if other != digit)
    return Task(f"rare{digit}-{count}", 0, sizes.class_seen, (*others, digit), count)


def train_all(planned: Sequence[Task], parts: Sequence[Parts], work: Path, sizes: Sizes) -> None:
    """Train what is not finished yet."""
    for number, task in enumerate(planned):
        folder = folder_of(task, work)
        if is_finished(folder):
            continue
        print(f"[{number + 1}/{len(planned)}] {task.name}", flush=True)
        train(config_of(task, parts, work, sizes))


def folder_of(task: Task, work: Path) -> Path:
    """Its run folder."""
    return work / "runs" / task.name


def is_finished(folder: Path) -> bool:
    """Whether a run has ended, its pictures and its page included."""
    about = folder / "about.json"
    return about.exists() and json.loads(about.read_text())["state"] == "finished"


def config_of(task: Task, parts: Sequence[Parts], work: Path, sizes: Sizes) -> RunConfig:
    """The packaged config for small pictures with half the channels, without labels, on one thread."""
    is_colour = task.digits is None
    settings: dict[str, Any] = {
        "output_dir": str(folder_of(task, work)), "seed": task.seed,
        "data.source": str(colour_folder(work) / "train" if is_colour else _source(task, parts, work, sizes)),
        "data.num_held_out": 0, "data.cache_dir": str(work / "cache"),
        "model.block_out_channels": list(sizes.colour_widths if is_colour else sizes.widths),
        "model.norm_num_groups": sizes.groups, "model.class_conditional": False,
        "train.num_images_seen": task.images_seen, "train.batch_size": 32, "train.label_dropout": 0.0,
        "train.evaluate_every": 0, "train.checkpoint_every": 500, "train.keep_checkpoints": 1, "train.num_threads": 1,
        "sample.num_images": sizes.num_samples, "sample.num_inference_steps": sizes.sample_steps,
        "sample.guidance_scale": 1.0, "watch.nearest": False, "watch.preview_every_images": 0,
    }  # fmt: skip
    if is_colour:
        settings["data.image_size"] = sizes.colour_side
    return load_config("recommended-64" if is_colour else "quickstart", settings)


def _source(task: Task, parts: Sequence[Parts], work: Path, sizes: Sizes) -> Path:
    """Its training images as a file."""
    path = work / "sets" / f"{task.name.split('-seed')[0]}.npy"
    if not path.exists():
        assert task.digits is not None
        if task.num_rare:
            images = np.concatenate(rare_set(list(parts), task.digits[-1], task.num_rare, sizes))
        else:
            images = np.concatenate([parts[digit].train for digit in task.digits])
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, images[:, 0])
        temporary.replace(path)
    return path
