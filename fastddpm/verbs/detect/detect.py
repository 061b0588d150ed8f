"""`fastddpm detect`: calibrate on normal images, judge others, write what was found."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from fastddpm.agreement import working
from fastddpm.config.checks import MIN_NORMAL
from fastddpm.config.runs import run_folder
from fastddpm.data.named_pictures import Fitting, NamedImages, named_images, read_inputs
from fastddpm.files import write_bytes
from fastddpm.measures.calibration import Calibration, check_normal
from fastddpm.measures.conformal import band
from fastddpm.pipelines.anomaly import AnomalyPipeline
from fastddpm.process import dealt, micro_batch, say
from fastddpm.progress import bar_options, progress_bar
from fastddpm.verbs.detect.findings import Inspection, Rows, put_images, write
from fastddpm.verbs.detect.request import CALIBRATION, DetectRequest
from fastddpm.verbs.detect.truth import mask_names, read_truth
from fastddpm.verbs.sample.open_model import open_pipeline
from fastddpm.verbs.sample.renoised import file_names

FALSE_ALARMS = 0.05
"""share of normal images, unless asked otherwise"""


def detect(request: DetectRequest) -> Path:
    """Judge images; every process of a launcher calls it, and the numbers are the same on any number of them.

    Returns: the folder with detection.json, results.csv, report.html, a picture, a map and a mask of each image, and
        the calibration.
    Raises: ValueError: images, model, calibration or masks that do not fit each other.
    """
    with working(request) as state:
        request.check_writable()
        with state.main_process_first():  # it may have to be fetched
            pipeline: AnomalyPipeline = open_pipeline(AnomalyPipeline, request.model)
        pipeline.to(state.device)
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.set_progress_bar_config(disable=True)
        fitting = Fitting.of(request.model, pipeline.image_shape)
        words = request.images or (f"{request.model}:train", f"{request.model}:held_out")
        inputs = read_inputs(words, fitting, prefers="test")
        if request.map_size == "picture" and None in inputs.placements:
            raise ValueError(
                "--map_size is picture, and a run's store keeps no sizes of its pictures; name the files themselves, "
                "or leave it out"
            )
        names = file_names(inputs.names)
        truth = read_truth(request.masks, inputs, names, fitting)
        for of in inputs.facts.get("sources", [inputs.facts]):
            if inputs.kinds and "layout" in of:
                say(state, f"{of['source']}: {of['layout']}")
        for line in truth.notes if truth else ():
            say(state, line)
        calibration, made_from = _calibration(request, pipeline, fitting, state)
        inspection = Inspection(
            request=request, images=inputs.images, placements=inputs.placements, sources=inputs.names, names=names,
            mask_names=mask_names(inputs.names, names), kinds=inputs.kinds, truth=truth, calibration=calibration,
            made_from=made_from,
        )  # fmt: skip
        if state.is_main_process:
            request.clear()
        state.wait_for_everyone()
        started = time.perf_counter()
        rows = _judge(pipeline, inspection, state)
        if state.is_main_process:
            write(inspection, rows, time.perf_counter() - started)
        state.wait_for_everyone()
    return request.out


def _calibration(
    request: DetectRequest, pipeline: AnomalyPipeline, fitting: Fitting, state: PartialState
) -> tuple[Calibration, dict[str, Any] | None]:
    """Calibration, and what it was made from; made by the main process, and read from its file by all."""
    path = request.out / CALIBRATION
    if request.calibration is not None:
        kept = Calibration.load(request.calibration)
        pipeline.check_calibration(kept)
        return kept, None
    normal = find_normal(request, fitting)
    starts, false_alarms = request.start_timesteps or pipeline.usual_starts(), request.false_alarms or FALSE_ALARMS
    groups = normal.groups()
    pipeline.check_starts(starts)  # on every process, before the others wait for the main one
    check_normal(len(groups), groups.tolist(), false_alarms)
    known = find_known(request, fitting)
    if state.is_main_process:
        say(state, _promise(normal, len(np.unique(groups)), known, false_alarms))
        pipeline.set_progress_bar_config(**bar_options("normal images"), unit="batch")
        made = pipeline.calibrate(
            normal.images, starts, groups=groups, known_images=None if known is None else known.images,
            micro_batch_size=request.micro_batch_size, false_alarms=false_alarms,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        write_bytes(path, made.to_bytes())
    state.wait_for_everyone()
    return Calibration.load(path), {"normal": dict(normal.facts), "known": None if known is None else dict(known.facts)}


def _promise(normal: NamedImages, num_groups: int, known: NamedImages | None, false_alarms: float) -> str:
    """Promise that so many normal images allow, in words."""
    count, (low, high) = len(normal.images), band(false_alarms, num_groups)
    alone = "" if num_groups == count else f" ({num_groups} counted: the others belong with them)"
    beside = f", {len(known.images)} that it may know beside them" if known else ""
    return (
        f"calibrating on {count} normal images{alone}{beside}: at most {100 * false_alarms:.3g} % false alarms, "
        f"{100 * low:.2g} to {100 * high:.2g} % by these ones (95 %); so many can promise "
        f"{100 / (num_groups + 1):.2g} % at least"
    )


def find_normal(request: DetectRequest, fitting: Fitting) -> NamedImages:
    """Images to calibrate with: those that the run held out, unless others are named."""
    word = request.normal or f"{request.model}:held_out"
    if request.normal is None and run_folder(request.model) is None:
        raise ValueError(
            f"{request.model} is no run folder, so it has no held-out images; say which images are normal, and were "
            "not trained on: --normal IMAGES"
        )
    try:
        with PartialState().main_process_first():  # the source may have to be read in
            chosen = named_images(word, fitting, most=request.num_normal)
    except ValueError as error:
        if request.normal is not None:
            raise
        raise ValueError(f"{error}; or name normal images that were not trained on: --normal IMAGES") from error
    if len(chosen.images) < MIN_NORMAL:
        raise ValueError(
            f"{word} has {len(chosen.images)} images; calibration takes at least {MIN_NORMAL} normal ones, 200 are "
            "better: name others with --normal"
        )
    return chosen


def find_known(request: DetectRequest, fitting: Fitting) -> NamedImages | None:
    """Images that are compared with too: what the run was trained on, where its held-out images calibrate."""
    word = request.known or (f"{request.model}:train" if request.normal is None else None)
    if word is None or request.num_known == 0:
        return None
    with PartialState().main_process_first():
        return named_images(word, fitting, most=request.num_known)


def _judge(pipeline: AnomalyPipeline, inspection: Inspection, state: PartialState) -> Rows:
    """A row of each image, in order, on every process; each writes the pictures of its micro-batches."""
    size, count = inspection.request.micro_batch_size, len(inspection.names)
    mine = dealt(count, size, state.process_index, state.num_processes)
    found: Rows = []
    with progress_bar(title="images", total=count, unit="image", is_shown=state.is_main_process, leave=True) as bar:
        for index in mine:
            places = list(micro_batch(index, count, size))
            output = pipeline(inspection.images[places], inspection.calibration, micro_batch_size=size)
            found += put_images(inspection, places, output)
            bar.update(min(len(places) * state.num_processes, count - bar.n))  # the others are about as far
        gathered = gather_object(found) if state.num_processes > 1 else found
    return sorted(gathered, key=lambda row: row["place"])
