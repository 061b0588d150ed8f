"""Ledger of the images each step sees, at which timesteps: a function of the config and the images alone, and so a
check on a run as much as a record of it."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fastddpm import draws
from fastddpm.config import RunConfig
from fastddpm.data import Subset, splits_of_run
from fastddpm.files import locked, written
from fastddpm.process import counted
from fastddpm.training.build_network import build_scheduler
from fastddpm.training.loss import Objective
from fastddpm.training.run import num_steps


def rows(config: RunConfig, train: Subset, steps: range) -> Iterator[dict[str, Any]]:
    """A row a step, as plain JSON values.

    `places`: of the step's images in the run's training set; `images`: where they stand in the store of all images;
    `timesteps`: what each is noised to. They are in the order of the global batch, of which micro-batches are cut: the
    same on any number of processes.
    """
    objective = Objective(build_scheduler(config), config.train, None, config.seed)
    for step in steps:
        first = step * config.train.batch_size
        positions = torch.arange(first, first + config.train.batch_size)
        places = draws.sample_ids(positions, len(train), seed=config.seed)
        yield {
            "step": step + 1,
            "places": places.tolist(),
            "images": train.indices_of(places).tolist(),
            "timesteps": objective.timesteps(positions).tolist(),
        }


def write_ledger(folder: Path, out: Path, first: int = 1, last: int | None = None) -> str:
    """Write the ledger of a run's steps as JSON lines.

    Args:
        folder: the run's.
        first, last: of the steps, from 1; None: the last one of the run.
    Returns: how often the images were seen, in a line.
    Raises: ValueError: no run there, or no such steps.
    """
    if not (folder / "config.yaml").exists():
        raise ValueError(f"{folder} holds no run: there is no config.yaml")
    config, splits = splits_of_run(folder)
    end = num_steps(config)
    last = end if last is None else last
    if not 1 <= first <= last <= end:
        raise ValueError(f"got steps {first} to {last}; the run has 1 to {end}")
    train = splits.train
    seen: Counter[int] = Counter()
    with locked(out), written(out) as temporary, temporary.open("w") as file:
        for row in rows(config, train, range(first - 1, last)):
            file.write(json.dumps(row) + "\n")
            seen.update(row["places"])
    times = sorted(set(seen.values()))
    missing = len(train) - len(seen)
    often = f"{times[0]} to {times[-1]} times" if len(times) > 1 else counted(times[0], "time")
    return (
        f"steps {first} to {last}: {sum(seen.values()):,} images of {len(train):,}, those seen {often}"
        f"{f', {missing:,} not yet' if missing else ''}"
    )
