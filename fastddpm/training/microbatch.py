"""micro_batch_size auto: the largest micro-batch that fits, found once a run; and what is said when one does not."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from fastddpm.config import RunConfig
from fastddpm.data import Splits, load_splits
from fastddpm.files import write_json
from fastddpm.models.attention import attention_kernels
from fastddpm.precision import resolve_precision
from fastddpm.process import is_out_of_memory, out_of_memory_says, runs_on_cpu, say
from fastddpm.training.build_network import build_unet, input_shape
from fastddpm.training.compiling import plan
from fastddpm.training.cost import GIB, Cost, Memory, expected_memory, kept_memory, micro_step, untouched
from fastddpm.training.split import Split, micro_batch_sizes

SHARE_OF_FREE = 0.5
"""share of the memory a process may still take on a CPU: oneDNN's workspaces and the allocator's gaps come on top of
the tensors; in five runs of two steps the process grew by 1.1 to 1.7 times the expected need"""
SHARE_KEPT_FREE = 0.05
"""share of a GPU's memory left free while micro-batches are tried, for workspaces and communication"""
MEASURED = "measured.json"


def settle(
    split: Split, config: RunConfig, accelerator: Accelerator, folder: Path, unet: nn.Module, splits: Splits
) -> Split:
    """The split as it is, or of micro_batch_size `auto` one of a size that fits; every rank calls it, with the network
    on its device, not wrapped. A run that goes on takes the size that it began with, from `measured.json`."""
    if config.train.micro_batch_size != "auto":
        return split
    size, why = broadcast_object_list([_recorded(folder)])[0], "as when the run began"
    if size is None:
        size, why = _find(split, config, unet, splits, accelerator.mixed_precision)
        smallest = min(gather_object([size]))
        size, why = smallest, why if size == smallest else "all that another rank has memory for"
        if accelerator.is_main_process:
            write_json(folder / MEASURED, {"micro_batch_size": size, "why": why})
    say(accelerator, f"train.micro_batch_size auto: {size}, {why}")
    return Split.of(replace(config.train, micro_batch_size=size), split.rank, split.world_size)


def outlook(config: RunConfig) -> str:
    """Outlook on a run, as comments: parameters, images, expected peak memory."""
    splits = load_splits(config.data, seed=config.seed)
    unet = build_unet(config, splits)
    count = sum(parameter.numel() for parameter in unet.parameters())
    shapes = [
        "x".join(map(str, shape)) for shape in (splits.train.image_shape, input_shape(config, splits.train.image_shape))
    ]
    crops = f", in crops of {shapes[1]}" if config.train.random_crop else ""
    return (
        f"# {count:,} parameters; {len(splits.train):,} training images of {shapes[0]}{crops}\n"
        f"# {forecast(config, unet, splits)}"
        + (f"\n# {plan(config, next(unet.parameters()).device)}" if config.train.compile == "auto" else "")
    )


def forecast(config: RunConfig, unet: Any, splits: Splits) -> Cost:
    """Cost of a run in this process's place, with nothing tried: on GPUs, `auto` counts as the largest."""
    on_cpu = runs_on_cpu()
    precision = config.train.mixed_precision
    if precision == "auto":
        precision = resolve_precision(precision, on_cpu)
    unet.to("cpu" if on_cpu else torch.accelerator.current_accelerator(), memory_format=torch.channels_last)
    if config.train.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    split = Split.of(config.train, 0, config.train.num_processes or int(os.environ.get("WORLD_SIZE", "1")))
    if config.train.micro_batch_size == "auto" and on_cpu:
        split = replace(split, micro_batch_size=_find(split, config, unet, splits, precision)[0])
    return Cost.of(unet, config, splits, split, precision)


def largest(sizes: list[int], fits: Callable[[int], bool]) -> int:
    """The first of `sizes`, which go down, that fits; if none does the last, which says itself that it does not."""
    return next((size for size in sizes if fits(size)), sizes[-1])


def fits_on_device(size: int, split: Split, config: RunConfig, unet: nn.Module, splits: Splits, precision: str) -> bool:
    """True if a step of this micro-batch can be computed, found by computing one, beside what a run keeps on the
    device; it leaves no trace."""
    device, shape = next(unet.parameters()).device, input_shape(config, splits.train.image_shape)
    kept = kept_memory(unet, config, splits)
    whole = 0 if device.type == "cpu" else torch.get_device_module(device).mem_get_info(device)[1]
    to_come = kept.optimizer + kept.averages + kept.images + int(SHARE_KEPT_FREE * whole)  # bytes
    with untouched(unet):
        try:
            reserved = torch.empty(to_come, dtype=torch.uint8, device=device)
            with attention_kernels(config.model.attention_backend, device, precision):
                for _ in range(min(2, split.batch_size // size)):  # the second one adds to the gradients of the first
                    micro_step(unet, shape, size, precision)
            del reserved
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
    return True


def available_bytes() -> int:
    """Memory of the host that this process may still take: free on the machine and in the control group, shared by its
    processes here, and below the process's own limit."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    limits = [psutil.virtual_memory().available // here]
    for folder, most, used in _CGROUPS:
        try:
            limits.append((int((folder / most).read_text()) - int((folder / used).read_text())) // here)
        except (OSError, ValueError):  # no such group, or "max"
            continue
    if hasattr(psutil, "RLIMIT_AS"):
        process = psutil.Process()
        soft, _ = process.rlimit(psutil.RLIMIT_AS)
        if soft != psutil.RLIM_INFINITY:
            limits.append(soft - process.memory_info().vms)
    return max(0, min(limits))


def explained_out_of_memory(
    config: RunConfig, split: Split, step: int, expected: Memory | None
) -> AbstractContextManager[None]:
    """Explain running out of memory in a training step, after `step` others: where, how much, and the two settings that
    help."""
    peak = "n/a" if expected is None else f"{expected.total / GIB:.2f} GiB"
    return out_of_memory_says(
        lambda: (
            f"out of memory in step {step + 1} on rank {split.rank}, with train.micro_batch_size "
            f"{split.micro_batch_size} (expected peak {peak} a process); use {_ways_out(config, split)}; the run then "
            f"goes on from its last checkpoint"
        )
    )


def explained_out_of_memory_of_samples(config: RunConfig, step: int) -> AbstractContextManager[None]:
    """Explain running out of memory in a run's samples after `step` steps, which have a micro-batch of their own."""
    size = config.sample.micro_batch_size
    way = f"--sample.micro_batch_size {size // 2}" if size > 1 else "smaller images or a smaller model"
    return out_of_memory_says(
        lambda: (
            f"out of memory while drawing samples after step {step}, with sample.micro_batch_size {size}; use {way}; "
            f"the run then goes on from its last checkpoint"
        )
    )


_CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def _ways_out(config: RunConfig, split: Split) -> str:
    smaller = [size for size in micro_batch_sizes(split.batch_size, split.world_size) if size < split.micro_batch_size]
    auto = "" if config.train.micro_batch_size == "auto" else " or auto"
    ways = [f"--train.micro_batch_size {smaller[0]}{auto}"] if smaller else []
    if config.train.gradient_checkpointing:
        ways.append("smaller images (--data.image_size, --train.random_crop) or a smaller model")
    else:
        ways.append("--train.gradient_checkpointing true")
    return ", or ".join(ways)


def _find(split: Split, config: RunConfig, unet: nn.Module, splits: Splits, precision: str) -> tuple[int, str]:
    """The size, and why. GPUs refuse what does not fit, so it is tried; a CPU swaps or kills, so it is estimated."""
    sizes, device = micro_batch_sizes(split.batch_size, split.world_size), next(unet.parameters()).device
    if device.type != "cpu":
        size = largest(sizes, lambda size: fits_on_device(size, split, config, unet, splits, precision))
        return size, f"the largest divisor of {split.batch_size} whose trial step fits on {device}"
    free, weights = available_bytes(), kept_memory(unet, config, splits).weights  # which are there already
    needed: dict[int, int] = {}

    def fits(size: int) -> bool:
        of_size = replace(split, micro_batch_size=size)
        needed[size] = expected_memory(unet, config, splits, of_size, precision).total - weights
        return needed[size] <= SHARE_OF_FREE * free

    size = largest(sizes, fits)
    return size, (
        f"the largest divisor of {split.batch_size} whose expected need, {needed[size] / GIB:.2f} GiB, is "
        f"{'within' if needed[size] <= SHARE_OF_FREE * free else 'not even then within'} {SHARE_OF_FREE:g} of the "
        f"{free / GIB:.2f} GiB that this process may take"
    )


def _recorded(folder: Path) -> int | None:
    """Size that a run with checkpoints was begun with; before the first one there is nothing to be consistent with."""
    path = folder / MEASURED
    if not path.exists() or not any((folder / "checkpoints").glob("step-*")):
        return None
    return int(json.loads(path.read_text())["micro_batch_size"])
