"""One of several processes that are measured together: python -m benchmarks.scaling_worker GIVEN.json OUT.json

The run is real (`open_run`, the loop's own `train_step`), for some steps; rank 0 writes medians. Whole steps and their
parts take turns, so that whatever else the machine does meets both.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.worker import peak_gib
from fastddpm.config import load_config
from fastddpm.models.attention import attention_kernels
from fastddpm.process import borrowed_process
from fastddpm.training.loop import train_step
from fastddpm.training.run import Run, open_run

WARM_UP = 2
"""first steps and sums that do not count"""
SIZES = (4, 2**14, 2**18, 2**20, 2**22)
"""bytes that are summed, beside the gradient's own"""


def main() -> None:
    given, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    with borrowed_process(), open_run(load_config(given["config"], given["overrides"])) as run:
        found = {**steps(run, given["steps"]), "sums": sums(run, given["steps"]), "checkpoint": checkpoint(run)}
        if run.accelerator.is_main_process:
            out.write_text(json.dumps({**found, "peak_gib": peak_gib()}))


def steps(run: Run, count: int) -> dict[str, float]:
    """Median seconds of a whole step, of its passes without the exchange, and of the update."""
    whole, compute, update = [], [], []
    with attention_kernels(run.config.model.attention_backend, run.accelerator.device, run.accelerator.mixed_precision):
        for _ in range(WARM_UP + count):
            run.accelerator.wait_for_everyone()
            whole.append(_seconds(lambda: train_step(run)))
            run.state.step += 1
            run.accelerator.wait_for_everyone()
            compute.append(_seconds(lambda: _passes(run)))
            update.append(_seconds(lambda: _update(run)))
            run.state.step += 1
    return {
        name: median(seconds[WARM_UP:])
        for name, seconds in (("whole", whole), ("compute", compute), ("update", update))
    }


def sums(run: Run, count: int) -> list[tuple[int, float]]:
    """(bytes, median seconds) of sums over all processes; of one process none."""
    if run.accelerator.num_processes == 1:
        return []
    gradient = sum(p.numel() * p.element_size() for p in run.state.unet.parameters())
    found = []
    for size in sorted({*SIZES, gradient, 2 * gradient}):
        values, seconds = torch.zeros(size // 4, device=run.accelerator.device), []
        for _ in range(WARM_UP + 3 * count):
            run.accelerator.wait_for_everyone()
            seconds.append(_seconds(lambda values=values: torch.distributed.all_reduce(values)))  # type: ignore[misc]
        found.append((size, median(seconds[WARM_UP:])))
    return found


def checkpoint(run: Run) -> dict[str, float]:
    """Seconds of a save, and bytes on the disk."""
    run.accelerator.wait_for_everyone()
    seconds = _seconds(run.save)
    folder = run.folder / "checkpoints" / f"step-{run.state.step:08d}"
    return {"seconds": seconds, "bytes": sum(path.stat().st_size for path in folder.iterdir())}


def _passes(run: Run) -> None:
    """Forwards and backwards over this rank's micro-batches; the gradients stay here."""
    with run.accelerator.no_sync(run.gradients.unet):
        for positions, images, labels in run.batches.of_step(run.state.step):
            weighted, _, _ = run.objective.training(
                run.gradients.unet, images, labels, positions.to(run.accelerator.device)
            )
            run.accelerator.backward(weighted.mean() * run.split.loss_scale)


def _update(run: Run) -> None:
    limit = run.config.train.max_grad_norm
    run.accelerator.clip_grad_norm_(run.gradients.unet.parameters(), math.inf if limit is None else limit)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    for ema in run.state.averages:
        ema.update(run.state.step)


def _seconds(call: Callable[[], Any]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
