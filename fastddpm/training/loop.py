"""The training loop.  (Ho et al. 2020, Alg. 1)"""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from fastddpm.training.environment import attention_kernels
from fastddpm.training.microbatch import explained_out_of_memory
from fastddpm.training.run import Run


def fit(run: Run, preview: Callable[[Run], None]) -> None:
    """Train to the end of the run; every rank calls it. Nothing is read from the device between two log rows."""
    run.log.start_clock(run.images_seen)
    with _progress_bar(run) as progress:  # which ends before an error is said
        _fit(run, preview, progress)


def _fit(run: Run, preview: Callable[[Run], None], progress: tqdm) -> None:
    config, state = run.config.train, run.state
    while state.step < run.num_steps:
        with (
            attention_kernels(run.config, run.accelerator.device),
            explained_out_of_memory(run.config, run.split, state.step, run.cost.memory),
        ):
            grad_norm = train_step(run)
        state.step += 1
        progress.update(config.batch_size)
        is_last = state.step == run.num_steps
        if is_due(state.step, config.log_every) or is_last:
            log_row(run, grad_norm, progress)
        if run.held_out is not None and (is_due(state.step, config.evaluate_every) or is_last):
            log_held_out_losses(run)
        if is_due(state.step, config.preview_every):
            preview(run)
        if is_due(state.step, config.checkpoint_every) or is_last:
            run.save()


def train_step(run: Run) -> torch.Tensor:
    """One optimizer step over a global batch, this rank's micro-batches of it; returns the gradient's norm."""
    accelerator, state = run.accelerator, run.state
    micro_batches = run.batches.of_step(state.step)
    for index, (positions, images, labels) in enumerate(micro_batches):
        last = index == len(micro_batches) - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(run.unet):
            weighted, plain, timesteps = run.objective.training(
                run.unet, images, labels, positions.to(accelerator.device)
            )
            accelerator.backward(weighted.mean() * run.split.loss_scale)
        state.meter.add(plain, timesteps)
    limit = run.config.train.max_grad_norm
    grad_norm = accelerator.clip_grad_norm_(run.unet.parameters(), math.inf if limit is None else limit)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.lr_schedule.step()
    average_buffers(run)
    for ema in state.averages:
        ema.update(state.step)
    return grad_norm


@torch.no_grad()
def average_buffers(run: Run) -> None:
    """Give every rank the mean of the floating buffers: each rank's BatchNorm saw its own micro-batches only."""
    if run.accelerator.num_processes == 1:
        return
    buffers = [buffer for buffer in run.state.unet.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = run.accelerator.reduce(torch.cat([buffer.flatten() for buffer in buffers]), reduction="mean")
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def log_held_out_losses(run: Run) -> None:
    """Write a row with the loss of each of the averaged weights."""
    main, *others = run.state.averages
    row: dict[str, Any] = {"held_out_loss": held_out_loss(run, main.model)}
    if others:
        row["held_out_loss_of_others"] = {ema.name: held_out_loss(run, ema.model) for ema in others}
    run.log.write(step=run.state.step, images_seen=run.images_seen, **row)


@torch.no_grad()
def held_out_loss(run: Run, unet: nn.Module) -> float:
    """The plain loss of some averaged weights on all held-out images, the same draws each time, split over the ranks.

    Args:
        unet: one of `run.state.averages`, in eval mode.
    """
    assert run.held_out is not None
    device, size = run.accelerator.device, run.split.micro_batch_size
    total = torch.zeros(2, dtype=torch.float64, device=device)
    for first in range(run.split.rank * size, len(run.held_out), size * run.split.world_size):
        places = torch.arange(first, min(first + size, len(run.held_out)))
        images, labels = run.held_out.gather(places)
        with run.accelerator.autocast():
            losses, _ = run.objective.held_out(unet, images, labels, places.to(device))
        total += torch.stack([losses.double().sum(), torch.ones_like(losses, dtype=torch.float64).sum()])
    if run.accelerator.num_processes > 1:
        total = run.accelerator.reduce(total, reduction="sum")
    return float(total[0] / total[1])


def log_row(run: Run, grad_norm: torch.Tensor, progress: tqdm) -> None:
    """Read the sums from the device, write a row of metrics.jsonl and tell the progress bar."""
    state = run.state
    state.meter.gather(run.accelerator)
    if not run.accelerator.is_main_process:
        return
    loss, by_quartile = state.meter.read_and_reset()
    rate, waited = run.log.throughput(run.images_seen, run.batches.waited_seconds)
    share = run.cost.peak_share(rate, run.accelerator.num_processes)
    run.log.write(
        step=state.step,
        images_seen=run.images_seen,
        loss=loss if math.isfinite(loss) else None,
        loss_by_quartile=by_quartile,
        learning_rate=run.lr_schedule.get_last_lr()[0],
        grad_norm=float(grad_norm) if torch.isfinite(grad_norm) else None,
        images_per_second=round(rate, 2),
        data_wait_share=round(waited, 4),
        peak_share=share if share is None else round(share, 4),
    )
    progress.set_postfix_str(f"loss {loss:.4f}")


def is_due(step: int, every: int) -> bool:
    """Whether something that happens each `every` steps (0: never) happens after this one."""
    return every > 0 and step % every == 0


def _progress_bar(run: Run) -> tqdm:
    batch_size = run.config.train.batch_size
    return tqdm(
        total=run.num_steps * batch_size,
        initial=run.images_seen,
        unit=" images",
        desc="training",
        disable=not run.accelerator.is_main_process,
        dynamic_ncols=True,
        mininterval=0.5,
    )
