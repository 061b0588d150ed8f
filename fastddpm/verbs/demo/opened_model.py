"""The model behind the page, and what is known of it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastddpm.config.checks import MIN_NORMAL
from fastddpm.config.runs import run_folder
from fastddpm.data.named_pictures import Fitting, NamedImages, named_images
from fastddpm.data.store import image_hash
from fastddpm.measures.calibration import Calibration
from fastddpm.pipelines.anomaly import AnomalyPipeline
from fastddpm.pipelines.cutmix import CutMixPipeline
from fastddpm.pipelines.vary import VariationPipeline
from fastddpm.process import borrowed_process, counted, join_processes
from fastddpm.schedulers.named import name_of, scheduler_named
from fastddpm.verbs.demo.request import DemoRequest
from fastddpm.verbs.sample.open_model import open_pipeline

SOLVERS = ("dpmsolver++", "unipc", "ddim", "ddpm")
FEW_STEPS = 20
"""steps of a model that names none"""
MAX_EXAMPLES = 10
MAX_NORMAL = 100
"""normal images to calibrate with: on a slow machine they take a while"""


@dataclass(frozen=True)
class Best:
    """Settings that the model draws best with, as far as they are known."""

    scheduler: str
    num_inference_steps: int
    guidance_scale: float


@dataclass(frozen=True, eq=False)
class OpenRun:
    """A model that answers one question at a time."""

    model: str
    """model as the user named it"""
    vary: VariationPipeline
    cutmix: CutMixPipeline
    """pipeline of the same network, as is the next one"""
    detect: AnomalyPipeline
    normal: np.ndarray
    """(N, C, H, W), uint8: what is normal, to calibrate with; fewer than can be: (0, C, H, W)"""
    normal_from: str
    """origin of the normal images; or why there are none"""
    fitting: Fitting
    """way of a picture that comes in"""
    solvers: dict[str, Any]
    """name -> scheduler; those that this model's schedule has"""
    examples: NamedImages
    """held-out images of the run that are none of `normal`, one of each class first; there may be none"""
    class_names: tuple[str, ...]
    """names of a model's classes; where they are not known, their numbers"""
    best: Best
    num_threads: int | None
    """threads that were asked for; None: all cores"""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """held by whoever computes: a scheduler counts its steps"""
    given_out: dict[bytes, tuple[str, int | None]] = field(default_factory=dict)
    """hash -> word and label of pictures that the page itself shows or draws: they fit already when they come back"""
    is_closing: threading.Event = field(default_factory=threading.Event)
    calibrated: list[Calibration] = field(default_factory=list)
    """one, as soon as it was needed"""

    @property
    def name(self) -> str:
        """The last part of what the user named."""
        return Path(self.model).resolve().name if Path(self.model).exists() else self.model

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.vary.image_shape

    @property
    def num_timesteps(self) -> int:
        """T."""
        return int(self.vary.scheduler.config.num_train_timesteps)

    @property
    def facts(self) -> str:
        """The model in a line."""
        channels, height, width = self.image_shape
        kind = self.vary.scheduler.config.prediction_type
        count = sum(parameter.numel() for parameter in self.vary.unet.parameters())
        device = self.vary.device.type
        threads = f", {counted(torch.get_num_threads(), 'thread')}" if device == "cpu" else ""
        classes = f"{len(self.class_names)} classes" if self.class_names else "no classes"
        colours = "grayscale" if channels == 1 else "RGB"
        return (
            f"{type(self.vary.unet).__name__}, {count:,} parameters · {width}x{height} {colours} · {classes} · "
            f"{self.num_timesteps:,} timesteps, predicts {kind} · {device}{threads}"
        )


@contextmanager
def opened(request: DemoRequest) -> Iterator[OpenRun]:
    """Open a run or a saved pipeline, as `fastddpm vary` does; says what could not be had of it.

    Raises: ValueError, OSError: there is none, it has no checkpoint yet, or it is no model that starts from images; or
        the normal images cannot be read, or are too few.
    """
    model = request.model
    with borrowed_process():
        device = join_processes(request.num_threads, 1).device
        vary = open_pipeline(VariationPipeline, model)
        vary.set_progress_bar_config(disable=True)
        vary.to(device)
        vary.network.to(memory_format=torch.channels_last)
        parts = (vary.unet, vary.scheduler, vary.config.null_class, vary.label_names)
        cutmix, detect = CutMixPipeline(*parts), AnomalyPipeline(*parts)
        for pipeline in (cutmix, detect):
            pipeline.set_progress_bar_config(disable=True)
        held_out = _held_out(model, vary.image_shape)
        names = tuple(vary.label_names or map(str, range(vary.num_classes or 0))) if vary.num_classes else ()
        fitting = Fitting.of(model, vary.image_shape)
        normals, normal_from, examples = _normal(request.normal, held_out, fitting)
        solvers = _solvers(vary.scheduler)
        run = OpenRun(
            model, vary, cutmix, detect, normals, normal_from, fitting, solvers, examples, names,
            _best(request, vary, solvers), request.num_threads,
        )  # fmt: skip
        labels = [None] * len(examples.names) if examples.labels is None else examples.labels.tolist()
        run.given_out.update(
            zip(map(image_hash, examples.images), zip(examples.names, labels, strict=True), strict=True)
        )
        yield run


def _normal(normal: str | None, held_out: NamedImages, fitting: Fitting) -> tuple[np.ndarray, str, NamedImages]:
    """Normal images, what they are or why there are none, and held-out images that are none of them, to be shown."""
    images = held_out.images
    labels = held_out.labels
    firsts = np.empty(0, np.int64) if labels is None else np.unique(labels, return_index=True)[1]  # of each class
    order = np.concatenate([firsts, np.setdiff1d(np.arange(len(images)), firsts)])
    if normal is not None:
        found = named_images(normal, fitting, most=MAX_NORMAL)
        if len(found.images) < MIN_NORMAL:
            raise ValueError(f"--normal {normal} has {len(found.images)} images; give at least {MIN_NORMAL}")
        taken = set(map(image_hash, found.images))
        others = np.array([place for place in order if image_hash(images[place]) not in taken], dtype=np.int64)
        return found.images, f"{len(found.images)} images of {normal}", _at(held_out, others[:MAX_EXAMPLES])
    if len(images) < MIN_NORMAL:
        why = f"{len(images)} held-out images of the run are too few: start with `--normal DATA`"
        return images[:0], why, _at(held_out, order[:MAX_EXAMPLES])
    count = min(MAX_EXAMPLES, len(images) - MIN_NORMAL)
    rest = np.sort(order[count:])[:MAX_NORMAL]
    return images[rest], f"{len(rest)} held-out images of the run", _at(held_out, order[:count])


def _at(found: NamedImages, places: np.ndarray) -> NamedImages:
    labels = None if found.labels is None else found.labels[places]
    return replace(found, images=found.images[places], labels=labels, names=[found.names[place] for place in places])


def _best(request: DemoRequest, vary: VariationPipeline, solvers: Mapping[str, Any]) -> Best:
    """Settings that are asked for, else those saved with the model."""
    own = name_of(vary.scheduler) if vary.config.num_inference_steps else ""
    scheduler: str = request.scheduler or (own if own in solvers else next(iter(solvers)))
    steps = vary.default_steps if scheduler == own else FEW_STEPS
    return Best(scheduler, request.num_inference_steps or steps, float(vary.config.guidance_scale))


def _solvers(trained_with: Any) -> dict[str, Any]:
    found = {}
    for name in SOLVERS:
        try:
            found[name] = scheduler_named(name, trained_with)
        except ValueError as error:  # a range of clipping that it does not have
            print(f"{name} is left out: {error}", flush=True)
    return found


def _held_out(model: str, image_shape: tuple[int, int, int]) -> NamedImages:
    """Some held-out images, as far as there are any."""
    try:
        if run_folder(model) is None:
            raise ValueError(f"{model} is no run folder: it has no config.yaml")
        return named_images(f"{model}:held_out", most=256)
    except (ValueError, OSError) as error:
        print(f"no example images: {error}", flush=True)
        return NamedImages(np.empty((0, *image_shape), np.uint8), None, None, [], {})
