"""What a run leaves behind: the pipeline and its pictures; also the previews on the way."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastddpm import report
from fastddpm.data import center_crop, to_uint8
from fastddpm.models.paper_unet import PaperUNet2DModel
from fastddpm.pipelines.generate import FastDDPMPipeline
from fastddpm.pipelines.vary import VariationPipeline
from fastddpm.training.metrics import read_metrics
from fastddpm.training.run import Run

VARIATION_STARTS = (0.1, 0.3, 0.6, 1.0)
"""of T, the rows of variations.png"""
STRIP_FRAMES = 12
NUM_STRIPS = 8


def preview(run: Run) -> None:
    """Draw a grid of samples of the averaged weights; keyed seeds, so that training does not notice."""
    if run.accelerator.is_main_process:
        folder = run.folder / "previews"
        folder.mkdir(exist_ok=True)
        with run.accelerator.autocast():
            _draw_samples(run, _pipeline(run), folder / f"{run.images_seen:09d}.png")
    run.accelerator.wait_for_everyone()


def finish(run: Run) -> None:
    """Save the pipeline and draw the run's pictures; the main rank does, the others wait."""
    if run.accelerator.is_main_process:
        pipeline = _pipeline(run)
        pipeline.save_pretrained(run.folder)
        report.save_loss_plot(read_metrics(run.folder / "metrics.jsonl"), run.folder / "loss.png")
        with run.accelerator.autocast():
            _draw_samples(run, pipeline, run.folder / "samples.png")
            _draw_denoising(run, pipeline)
            _draw_variations(run, pipeline)
            _finish_other_averages(run)
        print(_closing_lines(run.folder, pipeline))
    run.accelerator.wait_for_everyone()


def _finish_other_averages(run: Run) -> None:
    """Save every averaged weights but the main one as a pipeline of its own, and draw it from the same seeds."""
    for ema in run.state.averages[1:]:
        pipeline = FastDDPMPipeline(ema.model, run.objective.scheduler, run.objective.null_class)
        pipeline.save_pretrained(run.folder / ema.name)
        _draw_samples(run, pipeline, run.folder / f"samples-{ema.name}.png")


def _pipeline(run: Run) -> FastDDPMPipeline:
    return FastDDPMPipeline(run.state.ema.model, run.objective.scheduler, run.objective.null_class)


def _draw_samples(run: Run, pipeline: FastDDPMPipeline, path: Path) -> None:
    sample = run.config.sample
    pipeline.set_progress_bar_config(desc=path.stem, leave=False)
    images = pipeline(
        seeds=range(sample.seed, sample.seed + sample.num_images),
        guidance_scale=sample.guidance_scale,
        num_inference_steps=min(sample.num_inference_steps, run.config.scheduler.num_train_timesteps),
        micro_batch_size=min(sample.micro_batch_size, sample.num_images),
        output_type="pt",
    ).images
    fits = pipeline.num_classes is not None and sample.num_images % pipeline.num_classes == 0
    report.save_grid(_uint8(images), path, columns=pipeline.num_classes if fits else None)


def _draw_denoising(run: Run, pipeline: FastDDPMPipeline) -> None:
    sample = run.config.sample
    steps = min(sample.num_inference_steps, run.config.scheduler.num_train_timesteps)
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
            num_inference_steps=min(start, run.config.sample.num_inference_steps),
            seeds=range(run.config.sample.seed, run.config.sample.seed + len(inputs)),
            output_type="pt",
        )
        rows += [(f"noised, t={start}", _uint8(result.noised)), (f"from t={start}", _uint8(result.images))]
    report.save_labelled_rows(rows, run.folder / "variations.png")


def _uint8(images: Tensor) -> np.ndarray:
    return to_uint8(images * 2 - 1).cpu().numpy()


def _closing_lines(folder: Path, pipeline: FastDDPMPipeline) -> str:
    ours = isinstance(pipeline.unet, PaperUNet2DModel)
    first = ", after `import fastddpm`" if ours else ""
    how = f'"{folder}"' if ours or pipeline.num_classes is None else f'"{folder}", trust_remote_code=True'
    pictures = "  ".join(str(folder / name) for name in ("samples.png", "denoising.png", "variations.png", "loss.png"))
    return (
        f"\npictures: {pictures}\n\nload it:\n"
        f"  from fastddpm import FastDDPMPipeline\n"
        f'  pipeline = FastDDPMPipeline.from_pretrained("{folder}")\n'
        f"  images = pipeline(batch_size=10, num_inference_steps=100).images\n"
        f"or in plain diffusers{first}: DiffusionPipeline.from_pretrained({how})\n"
    )
