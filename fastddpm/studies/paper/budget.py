"""Budgets of time turned into images, for each model: by a rate that is measured once and written down, so that a run
that was stopped goes on to the same length."""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list

from fastddpm.config import RunConfig
from fastddpm.files import write_json
from fastddpm.models.attention import attention_kernels
from fastddpm.process import borrowed_process
from fastddpm.progress import progress_bar
from fastddpm.studies.dcgan.settings import DCGANConfig
from fastddpm.studies.dcgan.training import open_dcgan
from fastddpm.training.loop import train_step
from fastddpm.training.run import open_run

WARM_UP, STEPS = 2, 6
LONG_ENOUGH = 5.0
"""seconds that a measurement takes at least"""


@dataclasses.dataclass(frozen=True)
class Length:
    """Length of a run that takes the budget's time."""

    images_per_second: float
    num_images_seen: int


def lengths(path: Path, runs: Mapping[str, RunConfig | DCGANConfig], seconds: float) -> dict[str, Length]:
    """Lengths that are written at `path`, else measured and written there; every process calls it.

    Args:
        runs: name -> what is to be trained.
        seconds: of each.
    """
    if path.exists():
        kept = {name: Length(**row) for name, row in json.loads(path.read_text()).items()}
        if set(kept) != set(runs):
            raise ValueError(f"{path} is of other models ({sorted(kept)}; wanted {sorted(runs)}); remove it")
        return kept
    found, is_main = {}, PartialState().is_main_process
    for name, config in progress_bar(runs.items(), "speed of training", unit="model", is_shown=is_main):
        rate = _rate(config)
        found[name] = Length(round(rate, 3), max(1, round(rate * seconds)))
    if is_main:
        write_json(path, {name: dataclasses.asdict(row) for name, row in found.items()})
    return found


def _rate(config: RunConfig | DCGANConfig) -> float:
    """Images a second, the same on all processes."""
    folder = Path(config.output_dir).with_name(".speed")  # one that all processes see
    trial: Any = dataclasses.replace(config, output_dir=str(folder))
    try:
        with borrowed_process(), _steps_of(trial) as (step, accelerator):
            return _measured(step, accelerator) * config.train.batch_size
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _steps_of(config: RunConfig | DCGANConfig) -> Iterator[tuple[Callable[[], Any], Accelerator]]:
    """Step of a run that was just begun."""
    if isinstance(config, DCGANConfig):
        with open_dcgan(config) as gan:
            yield gan.step, gan.accelerator
        return
    with open_run(config) as run:
        device, precision = run.accelerator.device, run.accelerator.mixed_precision

        def of_ddpm() -> None:
            with attention_kernels(config.model.attention_backend, device, precision):
                train_step(run)
            run.state.step += 1

        yield of_ddpm, run.accelerator


def _measured(step: Callable[[], Any], accelerator: Accelerator) -> float:
    """Steps a second."""
    for _ in range(WARM_UP):
        step()
    synchronize = torch.get_device_module(accelerator.device).synchronize
    count = STEPS
    while True:
        synchronize()
        before = time.perf_counter()
        for _ in range(count):
            step()
        synchronize()
        seconds = float(broadcast_object_list([time.perf_counter() - before])[0])
        if seconds >= LONG_ENOUGH:
            return count / seconds
        count *= 4
