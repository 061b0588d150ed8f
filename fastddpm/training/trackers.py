"""TensorBoard, W&B and trackio, through Accelerate: they get what metrics.jsonl gets."""

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from fastddpm.config import RunConfig, field_names, value_of
from fastddpm.config.early_checks import check_installed
from fastddpm.config.settings import WatchConfig
from fastddpm.files import write_text

PROJECT = "fastddpm"


def check_extras(watch: WatchConfig) -> None:
    """Raises: ValueError: a package that these settings need is missing; names the extra that brings it."""
    for name in watch.trackers:
        check_installed(f"watch.trackers {name}", name, name, ", or leave the setting out")


def tracking_options(config: RunConfig) -> dict[str, Any]:
    """Arguments of `Accelerator`."""
    if not config.watch.trackers:
        return {}
    return {"log_with": list(config.watch.trackers), "project_dir": str(Path(config.output_dir) / "trackers")}


@contextmanager
def tracked(accelerator: Accelerator, config: RunConfig, images_seen: int) -> Iterator[None]:
    """Open the run's trackers, and close them however it ends.

    They get the settings, as text, and nothing of the environment. Only the main rank opens any: Accelerate would open
    a W&B run on each. `accelerator.end_training` is not used: it also ends the process group, which may not be ours.

    Args:
        images_seen: where the run goes on; TensorBoard drops what it has from there on.
    Raises: ValueError: a tracker does not start.
    """
    if not config.watch.trackers or not accelerator.is_main_process:
        yield
        return
    folder = Path(config.output_dir).absolute()
    run_id = _kept_id(folder / "trackers" / "run-id.txt", is_new=not images_seen)
    options: dict[str, dict[str, Any]] = {
        "tensorboard": {"purge_step": images_seen + 1} if images_seen else {},
        "wandb": {
            "dir": str(folder / "trackers"),
            "name": folder.name,
            "group": folder.name,
            "id": run_id,
            "resume": "allow",
        },
        "trackio": {"name": f"{folder.name}-{run_id}", "resume": "allow", "embed": False},
    }
    try:
        _open(accelerator, config, options)
        for tracker in accelerator.trackers:
            if tracker.name == "trackio":
                tracker.last_step = _last_step(options["trackio"]["name"])
        yield
    finally:
        for tracker in accelerator.trackers:
            if hasattr(tracker, "writer") or hasattr(tracker, "run"):  # it was opened
                tracker.finish()
        accelerator.trackers.clear()


def _kept_id(file: Path, *, is_new: bool) -> str:
    """The id of a run, kept in its folder, so that W&B and trackio go on with the same one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if is_new or not file.exists():
        write_text(file, uuid.uuid4().hex[:8])
    return file.read_text().strip()


def _last_step(name: str) -> int:
    """Images seen at the last row that trackio has of a run; -1: none."""
    from trackio.sqlite_storage import SQLiteStorage

    step = SQLiteStorage.get_last_step(PROJECT, name)
    return -1 if step is None else step


def _open(accelerator: Accelerator, config: RunConfig, options: dict[str, dict[str, Any]]) -> None:
    try:
        accelerator.init_trackers(PROJECT, plain_settings(config), options)
    except Exception as error:  # each tracker has its own: no login, no network, a full disk
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"watch.trackers {', '.join(config.watch.trackers)} could not be opened ({reason}); log in, set "
            "WANDB_MODE=offline for wandb, or leave watch.trackers out"
        ) from error


def plain_settings(config: RunConfig) -> dict[str, int | float | str | bool]:
    """Every setting by its dotted name; what trackers take no type of, as JSON text."""
    values = {name: value_of(config, name) for name in field_names(RunConfig)}
    return {n: v if isinstance(v, int | float | str | bool) else json.dumps(v) for n, v in values.items()}


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of metrics.jsonl; `loss_by_quartile` becomes four, losses of other averages one each."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, list):
            flat.update({f"{name}/{place}": entry for place, entry in enumerate(value, 1)})
        elif isinstance(value, dict):
            flat.update({f"{name}/{key}": entry for key, entry in value.items()})
        else:
            flat[name] = value
    numbers = {n: v for n, v in flat.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {n: v for n, v in numbers.items() if n not in ("step", "images_seen")}


def send_row(accelerator: Accelerator, row: Mapping[str, Any]) -> None:
    """Give a row of metrics.jsonl to the trackers; their step is `images_seen`.

    A run that goes on sends some steps again: trackio, which would keep both, gets none that it has.
    """
    numbers = scalars(row)
    for tracker in accelerator.trackers if numbers else ():
        if row["images_seen"] > getattr(tracker, "last_step", -1):
            tracker.log(numbers, step=row["images_seen"])


def send_picture(accelerator: Accelerator, name: str, picture: np.ndarray, images_seen: int) -> None:
    """Give a picture, (H, W, 3) uint8, to the trackers that take pictures."""
    for tracker in accelerator.trackers:
        options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
        if hasattr(tracker, "log_images"):
            tracker.log_images({name: picture[None]}, step=images_seen, **options)
