"""Answers of a model for the page: pictures in, pictures out. No page is known here.

Variations and blends are what `fastddpm vary` and `fastddpm cutmix` make of the same options, to the bit, and name the
command.
"""

import base64
import binascii
import math
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
from fastddpm.data.decode import decode, inspect
from fastddpm.data.fit import Fit
from fastddpm.data.meaning import Meaning
from fastddpm.data.named_pictures import Fitting
from fastddpm.data.opening import BadImage, open_bytes, open_file
from fastddpm.data.sources import Picture
from fastddpm.pipelines.steps import nearest_steps
from fastddpm.report.figures import overlay
from fastddpm.verbs.demo.opened_model import OpenRun

MAX_FILE_BYTES = 32 * 2**20
MAX_COUNT = 16
"""results of one answer"""
GONE = "is no longer here: pictures are tidied away after an hour; drop it again"

OnStep = Callable[[int, int], None]
"""told of (steps done, steps in all); what it raises ends the computation"""


class AskedToStop(Exception):
    """The user, or the end of the server, stopped a computation."""


@dataclass(frozen=True, eq=False)
class Given:
    """A picture that came in."""

    pixels: np.ndarray
    """(C, H, W), uint8"""
    word: str
    """word for it on a command line"""
    label: int | None = None
    """class, where it is known"""


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
    guidance_scale: float = 1.0
    """towards the class; 1: none"""
    scheduler: str = "dpmsolver++"
    num_inference_steps: int = 20

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_COUNT:
            raise ValueError(f"asked for {self.count} pictures; wanted 1 to {MAX_COUNT}")
        if not 0 <= self.seed < 2**53:  # what a browser counts to
            raise ValueError(f"the seed is {self.seed}; wanted a whole number from 0 to 2^53 - 1")
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale is {self.guidance_scale}; it must be finite")


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


def read_picture(path: str | Path, fitting: Fitting, name: str | None = None, *, keeps_size: bool = False) -> Given:
    """A picture from a file, checked and made to fit as the run did its own.

    Args:
        name: what the user knows the file by.
        keeps_size: as of `Fitting`.
    Raises: BadImage: too large, unreadable, animated, of a size that does not fit, or gone; the message names the file.
    """
    path = Path(path)
    name = name or path.name
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadImage(f"is larger than {MAX_FILE_BYTES // 2**20} MiB: make it smaller first")
        return Given(fitting(Picture(path.name, partial(open_file, path)), keeps_size=keeps_size)[0], name)
    except FileNotFoundError as error:
        raise BadImage(f"{name} {GONE}") from error
    except BadImage as error:
        raise BadImage(f"{name} {error}") from error


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
    inspect(lambda: open_bytes(png), Meaning())
    pixels, _ = decode(lambda: open_bytes(png), Fit(channels, background=(0, 0, 0)))
    if not pixels.any():
        raise BadImage("nothing is drawn yet: paint on the canvas first")
    image = Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    return np.array(small[None] if channels == 1 else small.transpose(2, 0, 1))


def vary(run: OpenRun, given: Given, dials: Dials, on_step: OnStep | None = None) -> Answer:
    """Variations of a picture.

    Raises: ValueError: settings that do not fit the model. AskedToStop: `on_step` raised it.
    """
    with run.lock:
        options, words = _prepared(run, run.vary, dials, on_step)
        made = run.vary(torch.from_numpy(given.pixels[None]), num_variations=dials.count, **options)
    line = f"fastddpm vary {shlex.join([run.model, given.word])} {words} --out variations.png"
    return Answer(given.pixels, _uint8(made.noised)[0], _uint8(made.images), line)


def blend(
    run: OpenRun, given: Given, partner: Given, box: Sequence[int], dials: Dials, on_step: OnStep | None = None
) -> Answer:
    """Blends of two pictures.

    Args:
        box: (top, left, height, width) of the part that comes from the partner, in pixels of the model.
    Raises: as `vary`; ValueError: a box that leaves the picture.
    """
    first, second = torch.from_numpy(given.pixels[None]), torch.from_numpy(partner.pixels[None])
    with run.lock:
        options, words = _prepared(run, run.cutmix, dials, on_step)
        made = run.cutmix(first, second, boxes=list(box), num_blends=dials.count, **options)
    pair = f"{shlex.join([run.model, given.word])} --partners {shlex.quote(partner.word)}"
    line = f"fastddpm cutmix {pair} --box {' '.join(map(str, box))} {words} --out blends.png"
    return Answer(_uint8(made.pastes)[0], _uint8(made.noised)[0], _uint8(made.images), line)


@dataclass(frozen=True, eq=False)
class Finding:
    """Distance of a picture from normal ones."""

    given: np.ndarray
    """(C, H, W), uint8"""
    overlay: np.ndarray
    """(3, H, W), uint8: the picture, red where it is not normal"""
    score: float
    p_value: float
    """share of normal pictures that are at least as anomalous"""
    is_normal_one: bool
    """true for one of the normal images, which was judged without itself"""
    threshold: float
    """a score above it is an anomaly"""


def detect(run: OpenRun, given: Given, on_step: OnStep | None = None) -> Finding:
    """Distance of a picture from normal ones; the first question takes the time to calibrate.

    Raises: ValueError: there are no normal images, or a schedule that cannot be asked. AskedToStop: `on_step` raised
        it.
    """
    if not len(run.normal):
        raise ValueError(f"nothing says what is normal: {run.normal_from}")
    options: dict[str, Any] = {"callback_on_step_end": _told(on_step)}
    with run.lock:
        if not run.calibrated:
            run.calibrated.append(run.detect.calibrate(torch.from_numpy(run.normal), micro_batch_size=20, **options))
        calibration = run.calibrated[0]
        picture = given.pixels[None]
        found = run.detect(torch.from_numpy(picture), calibration, micro_batch_size=1, **options)
    marked = overlay(picture, found.maps.numpy(), calibration.pixel_threshold)[0]
    return Finding(
        given.pixels, marked, float(found.scores[0]), float(found.p_values[0]), bool(found.is_calibrated_on[0]),
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
    guidance = 1.0 if dials.class_label is None else dials.guidance_scale
    label = "none" if dials.class_label is None and pipeline.null_class is not None else dials.class_label
    options = {
        "start_timestep": start,
        "num_inference_steps": steps,
        "seeds": seeds,
        "noise_seeds": seeds,
        "class_labels": label,
        "guidance_scale": guidance,
        "micro_batch_size": dials.count,
        "callback_on_step_end": _told(on_step),
        "callback_on_step_end_tensor_inputs": (),
        "output_type": "pt",
    }
    said = {
        "start_timesteps": start,
        "num_images": dials.count,
        "seed": dials.seed,
        "class_label": label,
        "guidance_scale": guidance,
        "scheduler": dials.scheduler,
        "num_inference_steps": steps,
        "micro_batch_size": dials.count,
        "num_threads": run.num_threads,
    }
    return options, " ".join(f"--{name} {value}" for name, value in said.items() if value is not None)


def _told(on_step: OnStep | None) -> Any:
    def after_step(pipeline: Any, step: int, _: Any, __: Any) -> dict[str, Any]:
        if on_step is not None:
            on_step(step + 1, pipeline.num_timesteps)
        return {}

    return after_step


def _uint8(images: torch.Tensor) -> np.ndarray:
    """Bytes of (N, C, H, W) in [0, 1]."""
    return to_uint8(images * 2 - 1).cpu().numpy()
