"""The drawn images of each labelled set: `fastddpm augment`, for all t and K that are measured."""

import contextlib
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pyarrow import parquet

from fastddpm.augmentation import AugmentRequest, augment
from fastddpm.config import GainConfig, RunConfig
from fastddpm.gain.generators import file_of
from fastddpm.gain.learning import Lesson
from fastddpm.gain.subsets import Set

Kind = Literal["own", "all"]
"""which model drew: the one that was trained on the labelled images alone, or the one of all images"""
SEEDS_APART = 10_000_000
"""of one labelled set's images to those of the next: no two are drawn from the same noise"""


@dataclass(frozen=True)
class Job:
    """One call of augment: the same number of images from each start."""

    starts: tuple[int, ...]
    num_per_image: int


def jobs_of(points: list[tuple[int, int]]) -> list[Job]:
    """The fewest images that hold all of `points`, (t, K): of several K at one t the smaller ones are parts of the
    largest."""
    most: dict[int, int] = defaultdict(int)
    for start, num in points:
        most[start] = max(most[start], num)
    by_num: dict[int, list[int]] = defaultdict(list)
    for start, num in most.items():
        by_num[num].append(start)
    return [Job(tuple(sorted(starts)), num) for num, starts in by_num.items()]


def draw(config: GainConfig, chosen: Set, kind: Kind, run: RunConfig, job: Job) -> None:
    """Draw one file, or go on with it, or leave it as it is. What augment says is left out, its bar stays."""
    out, drawing = _file(config, chosen, kind, job), config.drawing
    if out.exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    request = AugmentRequest(
        model=run.output_dir, data=str(file_of(config, chosen)), out=out, mode=drawing.mode,
        num_per_image=job.num_per_image, start_timesteps=job.starts, alpha=drawing.alpha,
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
    start, num = point
    job = next(job for job in jobs_of(config.drawing.points(chosen.size)) if start in job.starts)
    table = parquet.read_table(_file(config, chosen, kind, job), filters=[("start_timestep", "=", start)])
    # by source, `job.num_per_image` of each
    rows = np.arange(chosen.size * job.num_per_image).reshape(chosen.size, -1)[:, :num].ravel()
    assert len(table) == chosen.size * job.num_per_image
    table = table.take(rows)
    images = np.stack([_pixels(file["bytes"]) for file in table.column("image").to_pylist()])
    return Lesson(torch.from_numpy(images), torch.from_numpy(_targets(table.to_pydict(), num_classes)))


def _file(config: GainConfig, chosen: Set, kind: Kind, job: Job) -> Path:
    return Path(config.output_dir) / "drawn" / f"{chosen.name}-{kind}-{job.num_per_image}.parquet"


def _pixels(file: bytes) -> np.ndarray:
    """(C, H, W), uint8."""
    image = np.asarray(Image.open(io.BytesIO(file)))
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def _targets(columns: dict[str, list[object]], num_classes: int) -> np.ndarray:
    """(N, num_classes), float32."""
    targets = np.zeros((len(columns["label"]), num_classes), dtype=np.float32)
    if "soft_label" in columns:
        soft = np.array(columns["soft_label"], dtype=np.float32)
        targets[:, : soft.shape[1]] = soft
    else:
        targets[np.arange(len(targets)), np.array(columns["label"])] = 1
    return targets
