"""The drawn images of each labelled set: `fastddpm augment`, for all t and K that are measured."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from pyarrow import parquet

from fastddpm.config import RunConfig
from fastddpm.studies.augmentation.generators import file_of
from fastddpm.studies.augmentation.learning import Lesson
from fastddpm.studies.augmentation.settings import GainConfig, Kind
from fastddpm.studies.augmentation.subsets import Set
from fastddpm.verbs.augment.augment import augment
from fastddpm.verbs.augment.request import AugmentRequest
from fastddpm.verbs.sample.formats import images_in

SEEDS_APART = 10_000_000
"""seeds between one labelled set's images and the next one's: no two are drawn from the same noise"""


Points = Mapping[int, list[tuple[int, int]]]
"""(t, K) that are measured, for each number of labelled images"""


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
    start, num = point
    path, in_file = _file(config, chosen, kind, start), _num_in_file(config, chosen, start)
    images, table = images_in(path, []), parquet.read_table(path).drop_columns("image")
    assert len(table) == chosen.size * in_file, "by labelled image, as many of each"
    rows = np.arange(len(table)).reshape(chosen.size, in_file)[:, :num].ravel()
    return Lesson(torch.from_numpy(images[rows]), torch.from_numpy(_targets(table.take(rows).to_pydict(), num_classes)))


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
