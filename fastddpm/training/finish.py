"""Results that a run leaves behind: the pipeline, its pictures and its page."""

import textwrap
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastddpm import report
from fastddpm.data import center_crop, to_uint8
from fastddpm.hub import write_card
from fastddpm.pipelines.generate import FastDDPMPipeline
from fastddpm.pipelines.steps import nearest_steps
from fastddpm.pipelines.vary import VariationPipeline
from fastddpm.training.draw import draw_samples, drawing_pipeline, grid_columns, num_inference_steps, pipeline_of
from fastddpm.training.metrics import read_metrics
from fastddpm.training.page import loading_lines
from fastddpm.training.run import Run
from fastddpm.training.watch import Watch

VARIATION_STARTS = (0.1, 0.3, 0.6, 1.0)
"""shares of T, the rows of variations.png"""
STRIP_FRAMES = 12
NUM_STRIPS = 8


def finish(run: Run, watch: Watch) -> None:
    """Save the pipeline, draw the run's pictures and write its page; all ranks draw samples, the main one the rest."""
    pipeline = pipeline_of(run)
    if run.accelerator.is_main_process:
        pipeline.save_pretrained(run.folder)
    watch.finish()
    _finish_other_averages(run)
    if run.accelerator.is_main_process:
        with run.accelerator.autocast():
            _draw_denoising(run, drawing_pipeline(run))
            _draw_variations(run, drawing_pipeline(run))
        report.save_loss_plot(read_metrics(run.folder / "metrics.jsonl"), run.folder / "loss.png")
        watch.save_page()
        write_card(run.folder)  # again: now there is something to say
        print(_closing_lines(run.folder, pipeline))
    run.accelerator.wait_for_everyone()


def _finish_other_averages(run: Run) -> None:
    """Save all averaged weights but the main ones as pipelines of their own, and draw each from the same seeds."""
    for ema in run.state.averages[1:]:
        pipeline = pipeline_of(run, ema)
        if run.accelerator.is_main_process:
            pipeline.save_pretrained(run.folder / ema.name)
        samples = draw_samples(run, run.config.sample.num_images, f"samples {ema.name}", ema)
        if samples is not None:
            report.save_grid(samples, run.folder / f"samples-{ema.name}.png", columns=grid_columns(run, len(samples)))


def _draw_denoising(run: Run, pipeline: FastDDPMPipeline) -> None:
    sample = run.config.sample
    steps = num_inference_steps(run)
    shown = set(np.linspace(0, steps - 1, min(STRIP_FRAMES, steps)).round().astype(int).tolist())
    frames: list[Tensor] = []

    def keep(_: object, index: int, __: object, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if index in shown:
            frames.append(to_uint8(tensors["latents"]))
        return {}

    pipeline.set_progress_bar_config(desc="denoising", leave=False)
    pipeline(
        seeds=range(sample.seed, sample.seed + NUM_STRIPS),
        guidance_scale=sample.guidance_scale,
        num_inference_steps=steps,
        callback_on_step_end=keep,
    )
    strips = torch.stack(frames, dim=1).flatten(0, 1)  # (strips * frames, C, H, W)
    report.save_grid(strips.cpu().numpy(), run.folder / "denoising.png", columns=len(frames))


def _draw_variations(run: Run, generate: FastDDPMPipeline) -> None:
    source = run.splits.held_out if len(run.splits.held_out) else run.splits.train
    places = np.linspace(0, len(source) - 1, min(10, len(source))).round().astype(int)
    inputs = torch.from_numpy(np.stack([source.image(int(place)) for place in places]))
    inputs = center_crop(inputs, run.config.train.random_crop)
    vary = VariationPipeline(generate.unet, generate.scheduler, generate.null_class)
    vary.set_progress_bar_config(desc="variations", leave=False)
    num_train = run.config.scheduler.num_train_timesteps
    rows = [("input", inputs.numpy())]
    for share in VARIATION_STARTS:
        start = max(1, round(share * num_train))
        result = vary(
            inputs,
            start_timestep=start,
            num_inference_steps=nearest_steps(vary.scheduler, start, run.config.sample.num_inference_steps),
            seeds=range(run.config.sample.seed, run.config.sample.seed + len(inputs)),
            output_type="pt",
        )
        rows += [(f"noised, t={start}", _uint8(result.noised)), (f"from t={start}", _uint8(result.images))]
    report.save_labelled_rows(rows, run.folder / "variations.png", scale=max(1, round(64 / inputs.shape[-1])))


def _uint8(images: Tensor) -> np.ndarray:
    return to_uint8(images * 2 - 1).cpu().numpy()


def _closing_lines(folder: Path, pipeline: FastDDPMPipeline) -> str:
    (_, ours), (_, stock) = loading_lines(folder, pipeline)
    first = ", after `import fastddpm`" if stock.startswith("import fastddpm") else ""
    names = ("samples.png", "denoising.png", "variations.png", "loss.png")
    return (
        f"\nreport: {folder / 'report.html'}\npictures: {'  '.join(str(folder / name) for name in names)}\n"
        f"\nload it:\n{textwrap.indent(ours, '  ')}\n"
        f"or in plain diffusers{first}: {stock.rpartition('pipeline = ')[2]}\n"
    )
