"""Answers of a model for the page: pictures in, pictures out. No page is known here.

Variations and blends are what `fastddpm vary` and `fastddpm cutmix` make of the same options, to the bit, and name the
command.
"""

import base64
import binascii
import io
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastddpm.data import to_uint8
from fastddpm.data.decode import BadImage, Fit, decode, inspect
from fastddpm.data.named_pictures import Fitting
from fastddpm.data.sources import Picture
from fastddpm.data.sources.folders import open_file
from fastddpm.pipelines.steps import nearest_steps
from fastddpm.report.figures import overlay
from fastddpm.verbs.demo.opened_model import OpenRun

MAX_FILE_BYTES = 32 * 2**20
MAX_COUNT = 16
"""results of one answer"""

OnStep = Callable[[int, int], None]
"""told of (steps done, steps in all); what it raises ends the computation"""


class AskedToStop(Exception):
    """The user, or the end of the server, stopped a computation."""


@dataclass(frozen=True, kw_only=True)
class Dials:
    """Options that both kinds of answers share."""

    start_timestep: int
    count: int
    """K"""
    seed: int = 0
    """seed of the first result; the next ones follow"""
    class_label: int | None = None
    """None: any class"""
    scheduler: str = "dpmsolver++"
    num_inference_steps: int = 20

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_COUNT:
            raise ValueError(f"asked for {self.count} pictures; wanted 1 to {MAX_COUNT}")
        if not 0 <= self.seed < 2**53:  # what a browser counts to
            raise ValueError(f"the seed is {self.seed}; wanted a whole number from 0 to 2^53 - 1")


@dataclass(frozen=True, eq=False)
class Answer:
    """Pictures, each (C, H, W), uint8."""

    given: np.ndarray
    """image that was noised: the input as the model takes it, or the paste"""
    noised: np.ndarray
    """x_t of the first result"""
    images: np.ndarray
    """(K, C, H, W)"""
    command: str
    """a line for the shell that makes the same images"""


def read_picture(
    path: str | Path, fitting: Fitting, name: str | None = None, *, keeps_size: bool = False
) -> np.ndarray:
    """A picture from a file, checked and made to fit as the run did its own.

    Args:
        name: what the user knows the file by.
        keeps_size: as of `Fitting`.
    Returns: (C, H, W), uint8.
    Raises: BadImage: too large, unreadable, animated, or of a size that does not fit; the message names the file.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadImage(f"is larger than {MAX_FILE_BYTES // 2**20} MiB: make it smaller first")
        return fitting(Picture(path.name, partial(open_file, path)), keeps_size=keeps_size)[0]
    except BadImage as error:
        raise BadImage(f"{name or path.name} {error}") from error


def read_drawing(data_url: str, image_shape: tuple[int, int, int]) -> np.ndarray:
    """A drawing on a canvas of the model's aspect, in the model's size.

    Args:
        data_url: of a PNG, as a browser's canvas gives it; what is not painted is black.
    Returns: (C, H, W), uint8.
    Raises: BadImage: no such data, or nothing is painted.
    """
    channels, height, width = image_shape
    head, _, data = data_url.partition(",")
    if head != "data:image/png;base64" or len(data) > MAX_FILE_BYTES:
        raise BadImage("the drawing is no PNG: draw it on the canvas of this page")
    try:
        png = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise BadImage(f"the drawing cannot be decoded: {error}") from error
    inspect(lambda: Image.open(io.BytesIO(png)))
    pixels, _ = decode(lambda: Image.open(io.BytesIO(png)), Fit(channels, background=(0, 0, 0)))
    if not pixels.any():
        raise BadImage("nothing is drawn yet: paint on the canvas first")
    image = Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    return np.array(small[None] if channels == 1 else small.transpose(2, 0, 1))


def vary(run: OpenRun, picture: np.ndarray, dials: Dials, on_step: OnStep | None = None) -> Answer:
    """Variations of a picture, (C, H, W) uint8.

    Raises: ValueError: settings that do not fit the model. AskedToStop: `on_step` raised it.
    """
    with run.lock:
        options, words = _prepared(run, run.vary, dials, on_step)
        made = run.vary(torch.from_numpy(picture[None]), num_variations=dials.count, **options)
    line = f"fastddpm vary {shlex.quote(run.model)} IMAGE --num_images {dials.count} {words}"
    return Answer(picture, _uint8(made.noised)[0], _uint8(made.images), line)


def blend(
    run: OpenRun,
    picture: np.ndarray,
    partner: np.ndarray,
    box: Sequence[int],
    dials: Dials,
    on_step: OnStep | None = None,
) -> Answer:
    """Blends of two pictures, (C, H, W) uint8 each.

    Args:
        box: (top, left, height, width) of the part that comes from the partner, in pixels of the model.
    Raises: as `vary`; ValueError: a box that leaves the picture.
    """
    first, second = torch.from_numpy(picture[None]), torch.from_numpy(partner[None])
    with run.lock:
        options, words = _prepared(run, run.cutmix, dials, on_step)
        made = run.cutmix(first, second, boxes=list(box), num_blends=dials.count, **options)
    line = (
        f"fastddpm cutmix {shlex.quote(run.model)} IMAGE --partners OTHER --box {' '.join(map(str, box))} "
        f"--num_images {dials.count} {words}"
    )
    return Answer(_uint8(made.pastes)[0], _uint8(made.noised)[0], _uint8(made.images), line)


@dataclass(frozen=True, eq=False)
class Finding:
    """Distance of a picture from normal ones."""

    given: np.ndarray
    """(C, H, W), uint8"""
    overlay: np.ndarray
    """(3, H, W), uint8: the picture, red where it is not normal"""
    images: np.ndarray
    """(S, C, H, W), uint8: reconstruction of it from each start"""
    score: float
    is_normal_one: bool
    """true for one of the normal images, which was judged without itself"""
    threshold: float
    """a score above it is an anomaly"""


def detect(run: OpenRun, picture: np.ndarray) -> Finding:
    """Distance of a picture, (C, H, W) uint8, from normal ones; the first question takes the time to calibrate.

    Raises: ValueError: there are no normal images, or a schedule that cannot be asked.
    """
    if not len(run.normal):
        raise ValueError(f"nothing says what is normal: {run.normal_from}")
    with run.lock:
        if not run.calibrated:
            run.calibrated.append(run.detect.calibrate(torch.from_numpy(run.normal), micro_batch_size=20))
        calibration = run.calibrated[0]
        found = run.detect(torch.from_numpy(picture[None]), calibration, micro_batch_size=1, output_type="pt")
    marked = overlay(picture[None], found.maps.numpy(), calibration.pixel_threshold)[0]
    return Finding(
        picture, marked, _uint8(found.reconstructions), float(found.scores[0]), bool(found.is_calibrated_on[0]),
        calibration.image_threshold,
    )  # fmt: skip


def _prepared(run: OpenRun, pipeline: Any, dials: Dials, on_step: OnStep | None) -> tuple[dict[str, Any], str]:
    """A pipeline's arguments, and the same as words of a command; sets its solver."""
    if dials.scheduler not in run.solvers:
        raise ValueError(f"got the solver {dials.scheduler!r}; wanted {', '.join(run.solvers)}")
    if dials.num_inference_steps < 1:
        raise ValueError(f"got {dials.num_inference_steps} steps; wanted at least 1")
    start, steps = pipeline.starts_of(dials.start_timestep)[0], None
    pipeline.scheduler = run.solvers[dials.scheduler]
    if start > 0:
        steps = nearest_steps(pipeline.scheduler, start, dials.num_inference_steps)
    seeds = list(range(dials.seed, dials.seed + dials.count))
    options = {
        "start_timestep": start,
        "num_inference_steps": steps,
        "seeds": seeds,
        "noise_seeds": seeds,
        "class_labels": None if dials.class_label is None else [dials.class_label] * dials.count,
        "micro_batch_size": dials.count,
        "callback_on_step_end": _told(on_step),
        "callback_on_step_end_tensor_inputs": (),
        "output_type": "pt",
    }
    words = f"--start_timesteps {start} --seed {dials.seed} --scheduler {dials.scheduler}"
    words += "" if steps is None else f" --num_inference_steps {steps}"
    return options, words + ("" if dials.class_label is None else f" --class_label {dials.class_label}")


def _told(on_step: OnStep | None) -> Any:
    def after_step(pipeline: Any, step: int, _: Any, __: Any) -> dict[str, Any]:
        if on_step is not None:
            on_step(step + 1, pipeline.num_timesteps)
        return {}

    return after_step


def _uint8(images: torch.Tensor) -> np.ndarray:
    """Bytes of (N, C, H, W) in [0, 1]."""
    return to_uint8(images * 2 - 1).cpu().numpy()
