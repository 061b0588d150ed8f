"""Samples of a run's averaged weights, drawn on all ranks."""

import numpy as np
import torch
from torch import Tensor

from fastddpm.data import to_uint8
from fastddpm.pipelines.generate import FastDDPMPipeline
from fastddpm.process import dealt, micro_batch
from fastddpm.progress import bar_options
from fastddpm.training.ema import EMA
from fastddpm.training.microbatch import explained_out_of_memory_of_samples
from fastddpm.training.run import Run, pipeline_parts


def pipeline_of(run: Run, ema: EMA | None = None) -> FastDDPMPipeline:
    """The pipeline of averaged weights, as it is saved, which draws as `sample` says; without `ema`, the main ones."""
    unet, names = (ema or run.state.ema).model, run.splits.train.source.label_names
    return FastDDPMPipeline(*pipeline_parts(run.config, unet, names))


def draw_samples(
    run: Run, num_images: int, title: str, ema: EMA | None = None, num_inference_steps: int | None = None
) -> np.ndarray | None:
    """Draw images of the seeds from `sample.seed` on; every rank calls it.

    Micro-batches of `sample.micro_batch_size` are dealt to the ranks in turn, so that the pixels do not depend on the
    number of processes. Every random number is keyed: training does not notice.

    Args:
        title: of the main rank's progress bar.
        ema: the averaged weights; None: the main ones.
        num_inference_steps: reverse steps; None: those of `sample`.
    Returns: (num_images, C, H, W), uint8, on the main rank; None on the others.
    """
    accelerator, size = run.accelerator, min(run.config.sample.micro_batch_size, num_images)
    rank, world = accelerator.process_index, accelerator.num_processes
    mine = [place for m in dealt(num_images, size, rank, world) for place in micro_batch(m, num_images, size)]
    with explained_out_of_memory_of_samples(run.config, run.state.step):
        seeds = [run.config.sample.seed + place for place in mine]
        drawn = _draw(run, ema, seeds, size, title, num_inference_steps)
    if world == 1:
        return drawn.cpu().numpy()
    most = len(dealt(num_images, size, 0, world)) * size  # the same on all ranks, as gathering wants it
    padding = drawn.new_zeros(most - len(drawn), *drawn.shape[1:])
    gathered = accelerator.gather(torch.cat([drawn, padding]))
    if not accelerator.is_main_process:
        return None
    by_rank = gathered.unflatten(0, (world, -1, size))  # (rank, turn, place in the micro-batch, C, H, W)
    return by_rank.transpose(0, 1).flatten(0, 2)[:num_images].cpu().numpy()


def _draw(run: Run, ema: EMA | None, seeds: list[int], micro_batch_size: int, title: str, steps: int | None) -> Tensor:
    """Share of this rank: (len(seeds), C, H, W), uint8, on the device."""
    pipeline = pipeline_of(run, ema)
    if not seeds:
        return torch.empty(0, *pipeline.image_shape, dtype=torch.uint8, device=run.accelerator.device)
    pipeline.set_progress_bar_config(**bar_options(title, is_shown=run.accelerator.is_main_process))
    with run.accelerator.autocast():
        images = pipeline(
            seeds=seeds, num_inference_steps=steps, micro_batch_size=micro_batch_size, output_type="pt"
        ).images
    return to_uint8(images * 2 - 1)


def grid_columns(run: Run, num_images: int) -> int | None:
    """A column a class where that comes out even; None: as square as it gets."""
    num_classes = pipeline_of(run).num_classes
    return num_classes if num_classes is not None and num_images % num_classes == 0 else None
