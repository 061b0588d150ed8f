"""Common way of all drawing verbs: a series of images over all processes, steadily to disk, with progress."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from diffusers import DiffusionPipeline
from tqdm import tqdm

from fastddpm.agreement import working
from fastddpm.data import to_uint8
from fastddpm.launcher import as_launched
from fastddpm.pipelines.base import fingerprint
from fastddpm.precision import resolve_precision
from fastddpm.process import can_compile, counted, explained_out_of_memory_of_drawing
from fastddpm.progress import progress_bar
from fastddpm.verbs.sample.formats import check_grid
from fastddpm.verbs.sample.open_model import open_pipeline
from fastddpm.verbs.sample.outputs import Output, output_of, save_figure
from fastddpm.verbs.sample.request import Drawing
from fastddpm.verbs.sample.series import Series

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SECONDS_BETWEEN_LOOKS = 1.0
"""time between looks at what the other processes have drawn"""


Check = Callable[[tuple[int, int, int]], Any]


def run(
    request: Drawing,
    kind: type[DiffusionPipeline],
    series_of: Callable[[Any, str], Series],
    make_output: Callable[[Path, Any, dict[str, Any]], Output] = output_of,
    figure: Path | None = None,
    check: Check | None = None,
) -> Path:
    """Draw a series; every process of a launcher calls it. What an earlier one left unfinished is gone on with.

    Args:
        kind: of pipeline.
        series_of: (pipeline, precision) -> what is asked for.
        make_output: (out, the series, what decides the bytes) -> where it goes.
        figure: of one picture of all images.
        check: may refuse the images' (C, H, W) before any is drawn.
    Returns: where it is.
    """
    request = as_launched(request)
    with working(request) as state:
        chosen = resolve_precision(request.precision, state.device.type == "cpu", "precision")
        precision = "fp32" if chosen == "no" else chosen
        with state.main_process_first():  # it may have to be fetched
            pipeline = open_pipeline(kind, request.model, request.scheduler)
        series = series_of(pipeline, precision)
        if check is not None:
            check(series.image_shape)
        if figure is not None:
            check_grid(series.num_tiles, series.image_shape)
        output = make_output(request.out, series, _settings_of(request, series, pipeline, state, precision))
        _prepare(pipeline, request, state, precision)
        if output.is_finished():
            _say(state, f"{series.num_images:,} images are there already: {request.out}")
            if state.is_main_process:
                output.finish()  # its parts may be left
        else:
            _draw_all(output, pipeline, state)
        if figure is not None and state.is_main_process:
            save_figure(output, figure)
            _say(state, f"figure: {figure}")
        state.wait_for_everyone()
    return request.out


def _settings_of(
    request: Drawing, series: Series, pipeline: DiffusionPipeline, state: PartialState, precision: str
) -> dict[str, Any]:
    """Settings that decide the bytes: images of other settings are never mixed with these."""
    size = getattr(request, "shard_size", None)
    return {
        **series.settings(),
        "micro_batch_size": series.micro_batch_size,
        **({} if size is None else {"shard_size": size}),
        "precision": precision,
        "compile": request.compile,
        "device": state.device.type,
        "num_threads": torch.get_num_threads() if state.device.type == "cpu" else None,
        "weights": fingerprint(pipeline.network, getattr(pipeline, "scheduler", None)),
    }


def _prepare(pipeline: DiffusionPipeline, request: Drawing, state: PartialState, precision: str) -> None:
    """Put the network on this process's device, in its precision."""
    pipeline.set_progress_bar_config(disable=True)
    if precision != "fp32":
        pipeline.network.to(DTYPES[precision])
    pipeline.to(state.device)
    pipeline.network.to(memory_format=torch.channels_last)
    if request.compile and can_compile(state.device.type == "cpu"):
        pipeline.network.compile()
    elif request.compile:
        _say(state, "--compile needs a C++ compiler and there is none: going on without it")


def _say(state: PartialState, line: str) -> None:
    if state.is_main_process:
        print(line, flush=True)


def _draw_all(output: Output, pipeline: DiffusionPipeline, state: PartialState) -> None:
    series, started = output.series, time.perf_counter()
    if state.is_main_process:
        output.claim()
        if damaged := output.remove_damaged():
            _say(state, f"{counted(damaged, 'damaged file')} of an earlier start: drawn again")
    state.wait_for_everyone()
    output.check_claimed()
    before = output.done()
    state.wait_for_everyone()  # all have looked before anyone writes
    threads = f" of {counted(torch.get_num_threads(), 'thread')}" if state.device.type == "cpu" else ""
    maker, steps = series.facts.get("scheduler", series.facts.get("generator")), series.facts.get("steps")
    _say(
        state,
        f"{counted(series.num_images, 'image')} by {maker}{'' if steps is None else f' in {steps} steps'}: "
        f"{state.device.type}, {counted(state.num_processes, 'process')}{threads}, {series.facts['precision']}",
    )
    with _progress(output, state, before) as bar:
        _draw_share(output, pipeline, state, before, bar)
        state.wait_for_everyone()
    if state.is_main_process:
        output.finish()
        _say(state, _closing_line(output, before, time.perf_counter() - started))


def _draw_share(
    output: Output, pipeline: DiffusionPipeline, state: PartialState, before: set[int], bar: "Progress"
) -> None:
    """Draw this process's micro-batches; each is written while the next one is drawn, so that two are held at a
    time."""
    series = output.series
    advice = f" and another --out: what is in {output.out} has micro-batches of {series.micro_batch_size}"
    mine = output.share(state.process_index, state.num_processes)
    with explained_out_of_memory_of_drawing(series.micro_batch_size, advice), ThreadPoolExecutor(1) as pool:
        writing: Future[None] | None = None
        for index in mine:
            if index in before:
                continue
            images = draw_micro_batch(pipeline, series, index, bar)
            if writing is not None:
                writing.result()
            writing = pool.submit(output.put, index, images)
            bar.look()
        if writing is not None:
            writing.result()


def draw_micro_batch(pipeline: DiffusionPipeline, series: Series, index: int, bar: "Progress") -> np.ndarray:
    """(B, C, H, W), uint8."""
    images = series.draw(pipeline, series.places(index), bar.after_step)
    return to_uint8(images * 2 - 1).cpu().numpy()


class Progress:
    """A bar in images, of all processes together, on the main one: what lies on the disk."""

    def __init__(self, output: Output, bar: tqdm):
        self._output, self._bar, self._looked = output, bar, time.monotonic()

    def after_step(self, pipeline: DiffusionPipeline, step: int, _: Any, __: Any) -> dict[str, Any]:
        """Shows that a long micro-batch moves."""
        if not self._bar.disable:
            self._bar.set_postfix_str(f"step {step + 1}/{pipeline.num_timesteps}", refresh=False)
            self._bar.update(0)
        return {}

    def look(self) -> None:
        """Count what is on the disk, but not at every call: there may be many files."""
        if not self._bar.disable and time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS:
            self.show(self._output.done())

    def show(self, done: set[int]) -> None:
        """Put the bar where these micro-batches are."""
        self._looked = time.monotonic()
        self._bar.update(num_images_of(self._output, done) - self._bar.n)


@contextmanager
def _progress(output: Output, state: PartialState, before: set[int]) -> Iterator[Progress]:
    there = num_images_of(output, before)
    with progress_bar(
        title="samples", total=output.series.num_images, initial=there, unit="image", miniters=0, leave=True,
        is_shown=state.is_main_process,
    ) as bar:  # fmt: skip
        progress = Progress(output, bar)
        yield progress
        if state.is_main_process:
            progress.show(output.done())


def num_images_of(output: Output, micro_batches: set[int]) -> int:
    """Number of images in these micro-batches."""
    return sum(len(output.series.places(index)) for index in micro_batches)


def _closing_line(output: Output, before: set[int], seconds: float) -> str:
    there = num_images_of(output, before)
    drawn = output.series.num_images - there
    earlier = f", {there:,} of them from before" if there else ""
    return (
        f"{counted(output.series.num_images, 'image')}{earlier}{output.note}: {output.out} "
        f"({drawn:,} in {seconds:.1f} s, {drawn / seconds:.1f} images/s)"
    )
