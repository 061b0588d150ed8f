"""The training loop.  (Ho et al. 2020, Alg. 1)"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from fastddpm import draws
from fastddpm.data import DeviceImages
from fastddpm.draws import Stream
from fastddpm.models.attention import attention_kernels
from fastddpm.process import say, store_of_this_start
from fastddpm.progress import progress_bar
from fastddpm.training.guard import GRADIENT, REASONS, flat, keep_if
from fastddpm.training.microbatch import explained_out_of_memory
from fastddpm.training.run import Run
from fastddpm.training.stopping import Stopped, Stopping
from fastddpm.training.watchdog import Watchdog, watched

MAX_TRAIN_SET = 512
"""training images whose loss is compared from one time to the next, when there are no held-out ones to be like"""


def fit(run: Run, after_step: Callable[[], None], stopping: Stopping | None = None) -> None:
    """Train to the end of the run; every rank calls it. Nothing is read from the device between two log rows.

    Args:
        after_step: looks at the run, before a checkpoint of the same step is written.
        stopping: is asked after each step.
    Raises: Stopped: it was asked to stop, and a checkpoint of the last step is there.
    """
    run.log.start_clock(run.images_seen)
    stopping = stopping or Stopping()
    stopping.store = store_of_this_start()
    with (  # the bar ends before an error is said
        watched(run.split, stopping.store, run.state.step, run.config.train.hang_timeout) as watchdog,
        training_bar(run.accelerator, run.split.batch_size, run.state.step, run.num_steps) as progress,
        stopping.deferred(),
    ):
        _fit(run, after_step, progress, stopping, watchdog)


def _fit(run: Run, after_step: Callable[[], None], progress: tqdm, stopping: Stopping, watchdog: Watchdog) -> None:
    config, state = run.config.train, run.state
    is_first = True
    while state.step < run.num_steps:
        with (
            watchdog.busy("compiling") if is_first and config.compile else nullcontext(),
            attention_kernels(
                run.config.model.attention_backend, run.accelerator.device, run.accelerator.mixed_precision
            ),
            explained_out_of_memory(run.config, run.split, state.step, run.cost.memory),
        ):
            grad_norm = train_step(run)
        state.step, is_first = state.step + 1, False
        watchdog.stepped(state.step)
        progress.update(config.batch_size)
        is_last = state.step == run.num_steps
        if is_due(state.step, config.log_every) or is_last:
            log_row(run, grad_norm, progress)
        if is_due(state.step, config.evaluate_every) or is_last:
            with run.log.paused(), watchdog.busy("evaluation"):
                run.log.write(step=state.step, images_seen=run.images_seen, **keyed_losses(run))
        stopped = stopping.stopped() if stopping.is_due(state.step) else None
        if stopped is None:
            try:
                # alone, it may be left in the middle; of several processes, none leaves the others waiting
                with stopping.deferred(run.accelerator.num_processes > 1), watchdog.busy("pictures"):
                    after_step()
            except Stopped as error:
                stopped = error.with_traceback(None)  # whose frames hold the pictures
        if is_due(state.step, config.checkpoint_every) or is_last or stopped is not None:
            with watchdog.busy("a checkpoint"):
                run.save()
        if stopped is not None:
            where = f"stopped by {stopped.name} after step {state.step}, which is saved"
            say(run.accelerator, f"\n{where}: the same command goes on from it")
            raise stopped


def train_step(run: Run) -> torch.Tensor:
    """One optimizer step over a global batch, this rank's micro-batches of it; returns the gradient's norm."""
    accelerator, state = run.accelerator, run.state
    micro_batches = run.batches.of_step(state.step)
    gradients, buffers = run.gradients, [buffer for buffer in state.unet.buffers() if buffer.is_floating_point()]
    before = flat(buffers) if buffers else None
    losses: list[torch.Tensor] = []
    for index, (positions, images, labels) in enumerate(micro_batches):
        with gradients.micro_batch(is_last=index == len(micro_batches) - 1):
            weighted, plain, timesteps = run.objective.training(
                gradients.network, images, labels, positions.to(accelerator.device, non_blocking=True)
            )
            loss = weighted.mean()
            losses.append(loss.detach())
            scaled = loss if gradients.loss_scale == 1 else loss * gradients.loss_scale
            (scaled if accelerator.scaler is None else accelerator.scaler.scale(scaled)).backward()
        state.meter.add(plain, timesteps)
    gradients.finish()
    limit = run.config.train.max_grad_norm
    grad_norm = accelerator.clip_grad_norm_(gradients.unet.parameters(), math.inf if limit is None else limit)
    skip = state.guard.look(state.step + 1, torch.stack(losses).sum() if losses[1:] else losses[0], grad_norm)
    if accelerator.scaler is None:  # which looks itself
        state.optimizer.found_inf = skip  # type: ignore[attr-defined]
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.lr_schedule.step()
    gradients.average_buffers()
    if before is not None:
        keep_if(skip, buffers, before)
    for ema in state.averages:
        ema.update(state.step)
    return grad_norm


def keyed_losses(run: Run) -> dict[str, Any]:
    """The plain loss of the averaged weights on held-out images, if there are any, and on as many training images.

    Both are comparable from one time to the next, and with each other: the same images each time, and the i-th image of
    both has the same noise and timestep. Of other averaged weights than the main ones, the held-out loss alone.
    """
    held_out, (main, *others) = run.held_out, run.state.averages
    count = min(MAX_TRAIN_SET if held_out is None else len(held_out), len(run.images))
    chosen = draws.shuffled(torch.arange(count), len(run.images), seed=run.config.seed, epoch=0, stream=Stream.CHOICE)
    losses: dict[str, Any] = {"train_set_loss": keyed_loss(run, main.model, run.images, chosen)}
    if held_out is not None:
        all_of_them = torch.arange(len(held_out))
        losses["held_out_loss"] = keyed_loss(run, main.model, held_out, all_of_them)
        if others:
            of_others = {ema.name: keyed_loss(run, ema.model, held_out, all_of_them) for ema in others}
            losses["held_out_loss_of_others"] = of_others
    return losses


@torch.no_grad()
def keyed_loss(run: Run, unet: nn.Module, images: DeviceImages, ids: torch.Tensor) -> float:
    """The mean of `Objective.held_out` of averaged weights over some images, (n,) int64 ids, split over the ranks."""
    device, size = run.accelerator.device, run.split.micro_batch_size
    total = torch.zeros(2, dtype=torch.float64, device=device)
    for first in range(run.split.rank * size, len(ids), size * run.split.world_size):
        places = torch.arange(first, min(first + size, len(ids)))
        batch, labels = images.gather(ids[places])
        with run.accelerator.autocast():
            losses, _ = run.objective.held_out(unet, batch, labels, places.to(device, non_blocking=True))
        total += torch.stack([losses.double().sum(), torch.ones_like(losses, dtype=torch.float64).sum()])
    if run.accelerator.num_processes > 1:
        total = run.accelerator.reduce(total, reduction="sum")
    return float(total[0] / total[1])


def log_row(run: Run, grad_norm: torch.Tensor, progress: tqdm) -> None:
    """Read the sums from the device, write a row of metrics.jsonl and tell the progress bar."""
    state = run.state
    state.meter.gather(run.accelerator)
    say_incidents(run)
    if not run.accelerator.is_main_process:
        return
    loss, by_quartile = state.meter.read_and_reset()
    rate, waited = run.log.throughput(run.images_seen, run.batches.waited_seconds)
    share = run.cost.peak_share(rate, run.accelerator.num_processes)
    run.log.write(
        step=state.step,
        images_seen=run.images_seen,
        loss=loss,
        loss_by_quartile=by_quartile,
        learning_rate=run.lr_schedule.get_last_lr()[0],
        grad_norm=float(grad_norm),
        images_per_second=round(rate, 2),
        data_wait_share=round(waited, 4),
        peak_share=share if share is None else round(share, 4),
    )
    progress.set_postfix_str(f"loss {loss:.4f}")


def say_incidents(run: Run) -> None:
    """Name the steps since the last row that were left out or had a spike, with their images.

    Raises: FloatingPointError: too many in a row had no finite gradient; the same on all ranks.
    """
    train, size = run.config.train, len(run.images)
    count, newest, in_a_row = run.state.guard.read_and_reset()
    for incident in newest if run.accelerator.is_main_process else ():
        first = (incident.step - 1) * train.batch_size
        places = draws.sample_ids(torch.arange(first, first + train.batch_size), size, seed=run.config.seed)
        what = f"{incident.reason}{', left out' if incident.skipped else ''}"
        run.log.write(step=run.state.step, images_seen=run.images_seen, incident=what, incident_step=incident.step,
                      incident_images=places.tolist())  # fmt: skip
        tqdm.write(f"warning: step {incident.step}: {what}; its images are named in metrics.jsonl")
    if count > len(newest):
        tqdm.write(f"warning: {count} such steps since the last row; the newest {len(newest)} are named")
    if in_a_row >= train.max_skipped_in_a_row:
        raise FloatingPointError(
            f"rank {run.accelerator.process_index}, step {run.state.step}: {in_a_row} steps in a row had no finite "
            f"gradient ({newest[-1].reason if newest else REASONS[GRADIENT]}); the newest checkpoint is of before: "
            f"start in another --out with a lower train.learning_rate, or mend the images that metrics.jsonl "
            f"names"
        )


def is_due(step: int, every: int) -> bool:
    """True if something that happens each `every` steps (0: never) happens after this one."""
    return every > 0 and step % every == 0


def training_bar(accelerator: Accelerator, batch_size: int, step: int, num_steps: int) -> tqdm:
    """A bar in images of all ranks, on the main one, of a run after `step` steps."""
    return progress_bar(
        title="training", total=num_steps * batch_size, initial=step * batch_size, unit=" images", leave=True,
        is_shown=accelerator.is_main_process,
    )  # fmt: skip
