"""Results that a run leaves behind: the pipeline, its pictures and its page."""

import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor

from fastddpm import report
from fastddpm.data import center_crop, to_uint8
from fastddpm.hub import write_card
from fastddpm.pipelines.generate import FastDDPMPipeline
from fastddpm.pipelines.vary import VariationPipeline
from fastddpm.progress import bar_options
from fastddpm.training.draw import draw_samples, grid_columns, pipeline_of
from fastddpm.training.folder import is_finished
from fastddpm.training.metrics import read_metrics
from fastddpm.training.numbers import in_a_line, numbers_of
from fastddpm.training.page import next_commands
from fastddpm.training.run import Run
from fastddpm.training.watch import Watch

PICTURES, PAGE = ("samples.png", "denoising.png", "variations.png", "loss.png"), "report.html"
VARIATION_STARTS = (0.1, 0.3, 0.6, 1.0)
"""shares of T, the rows of variations.png"""
STRIP_FRAMES = 12
NUM_STRIPS = 8


def left_behind(run: Run) -> list[str]:
    """Names of the files of a finished run that `finish` makes."""
    others = [f"samples-{ema.name}.png" for ema in run.state.averages[1:]]
    return [*PICTURES, *others, *(["nearest.png"] if run.config.watch.nearest else []), "model_index.json", PAGE]


def missing(run: Run) -> list[str] | None:
    """Find which of them are gone of a run that was finished before; None: it was not. Every rank calls it."""
    found: list[str] | None = None
    if run.state.step == run.num_steps and is_finished(run.folder):
        found = [name for name in left_behind(run) if not (run.folder / name).exists()]
    of_main: list[str] | None = broadcast_object_list([found])[0]
    return of_main


def finish(run: Run, watch: Watch, wanted: Sequence[str]) -> None:
    """Save the pipeline, draw the run's pictures and write its page; all ranks draw samples, the main one the rest.

    Args:
        wanted: names of what is made, see `left_behind`; the page always is.
    """
    if run.accelerator.is_main_process and "model_index.json" in wanted:
        pipeline_of(run).save_pretrained(run.folder)
    if "samples.png" in wanted or "nearest.png" in wanted:
        watch.finish()
    _finish_other_averages(run, wanted)
    if run.accelerator.is_main_process:
        with run.accelerator.autocast():
            if "denoising.png" in wanted:
                _draw_denoising(run, pipeline_of(run))
            if "variations.png" in wanted:
                _draw_variations(run, pipeline_of(run))
        report.save_loss_plot(read_metrics(run.folder / "metrics.jsonl"), run.folder / "loss.png")
        watch.save_page()
        write_card(run.folder)  # again: now there is something to say
        learnt = in_a_line(numbers_of(run, read_metrics(run.folder / "metrics.jsonl")))
        pictures = "  ".join(str(run.folder / name) for name in PICTURES)
        commands = textwrap.indent("\n".join(next_commands(run)), "  ")
        print(f"\n{learnt}\nreport: {run.folder / PAGE}\npictures: {pictures}\nnext:\n{commands}\n")
    run.accelerator.wait_for_everyone()


def _finish_other_averages(run: Run, wanted: Sequence[str]) -> None:
    """Save all averaged weights but the main ones as pipelines of their own, and draw each from the same seeds."""
    for ema in run.state.averages[1:]:
        if f"samples-{ema.name}.png" not in wanted:
            continue
        pipeline = pipeline_of(run, ema)
        if run.accelerator.is_main_process:
            pipeline.save_pretrained(run.folder / ema.name)
        samples = draw_samples(run, run.config.sample.num_images, f"samples {ema.name}", ema)
        if samples is not None:
            report.save_grid(samples, run.folder / f"samples-{ema.name}.png", columns=grid_columns(run, len(samples)))


def _draw_denoising(run: Run, pipeline: FastDDPMPipeline) -> None:
    first, steps = run.config.sample.seed, pipeline.default_steps
    shown = set(np.linspace(0, steps - 1, min(STRIP_FRAMES, steps)).round().astype(int).tolist())
    frames: list[Tensor] = []

    def keep(_: object, index: int, __: object, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if index in shown:
            frames.append(to_uint8(tensors["latents"]))
        return {}

    pipeline.set_progress_bar_config(**bar_options("denoising"))
    pipeline(seeds=range(first, first + NUM_STRIPS), callback_on_step_end=keep)
    strips = torch.stack(frames, dim=1).flatten(0, 1)  # (strips * frames, C, H, W)
    report.save_grid(strips.cpu().numpy(), run.folder / "denoising.png", columns=len(frames))


def _draw_variations(run: Run, generate: FastDDPMPipeline) -> None:
    source = run.splits.held_out if len(run.splits.held_out) else run.splits.train
    places = np.linspace(0, len(source) - 1, min(10, len(source))).round().astype(int)
    inputs = torch.from_numpy(np.stack([source.image(int(place)) for place in places]))
    inputs = center_crop(inputs, run.config.train.random_crop)
    labels = None if generate.num_classes is None else source.labels_of(torch.from_numpy(places))
    vary = VariationPipeline(**generate.components, **generate.parameters)
    vary.set_progress_bar_config(**bar_options("variations"))
    num_train = run.config.scheduler.num_train_timesteps
    rows = [("input", inputs.numpy())]
    for share in VARIATION_STARTS:
        start = max(1, round(share * num_train))
        result = vary(
            inputs,
            start_timestep=start,
            class_labels=labels,
            seeds=range(run.config.sample.seed, run.config.sample.seed + len(inputs)),
            output_type="pt",
        )
        rows += [(f"noised, t={start}", _uint8(result.noised)), (f"from t={start}", _uint8(result.images))]
    report.save_labelled_rows(rows, run.folder / "variations.png", scale=max(1, round(64 / inputs.shape[-1])))


def _uint8(images: Tensor) -> np.ndarray:
    return to_uint8(images * 2 - 1).cpu().numpy()
