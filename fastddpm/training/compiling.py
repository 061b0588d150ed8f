"""train.compile: the network compiled or not; auto: as its own steps are faster."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from fastddpm.config import RunConfig, newest_manifest
from fastddpm.data import Splits
from fastddpm.models.attention import attention_kernels
from fastddpm.process import can_compile, say
from fastddpm.training.build_network import input_shape
from fastddpm.training.cost import micro_step, untouched
from fastddpm.training.split import Split

WORTH_TRYING = 600.0
"""seconds of training without it from which on it is tried: compiling a U-Net takes about a minute of two cores, and
gains 0 to 60 % of the rest"""
MOST_OF_EAGER = 0.97
"""share of the time without it that a compiled micro-batch may take to be kept"""
MOST_APART = 0.05
"""distance of the compiled prediction from the other, over its norm, from which on the compiler is not trusted:
bfloat16 rounds both to less than 0.02"""
ROUNDS = 4


def settle_compile(
    config: RunConfig, folder: Path, unet: nn.Module, split: Split, splits: Splits, accelerator: Accelerator
) -> RunConfig:
    """Compile the network, in place, if `train.compile` is true or auto finds it to be faster; every rank calls it,
    with the network on its device, not wrapped, and all decide alike.

    A run that goes on keeps its choice, which stands in the manifest. What is tried leaves no trace in the network.
    Returns: the config, with yes or no for auto.
    """
    wanted = config.train.compile
    if wanted == "auto":
        wanted = broadcast_object_list([_as_begun(folder)])[0]
        if wanted is None:
            wanted = _why_not(config, accelerator.device) is None and _is_faster(
                config, unet, split, splits, accelerator
            )
        config = replace(config, train=replace(config.train, compile=wanted))
    if wanted and not can_compile(accelerator.device.type == "cpu"):
        say(accelerator, "train.compile needs a C++ compiler and there is none: training goes on without it")
    elif wanted:
        unet.compile()  # in place: the names of the weights stay as they are
    return config


def plan(config: RunConfig, device: torch.device) -> str:
    """Say what train.compile auto will do, in a line."""
    why = _why_not(config, device)
    tried = f"tried if training takes over {WORTH_TRYING / 60:.0f} minutes without it, and kept if it is faster"
    return f"train.compile auto: {tried if why is None else f'no, {why}'}"


def _why_not(config: RunConfig, device: torch.device) -> str | None:
    if config.train.determinism is not None:
        return f"train.determinism {config.train.determinism} keeps the bits of the plain network"
    return None if can_compile(device.type == "cpu") else "there is no C++ compiler"


def _as_begun(folder: Path) -> bool | None:
    manifest = newest_manifest(folder)
    return None if manifest is None else bool(manifest.get("config", {}).get("train", {}).get("compile", False))


def _is_faster(config: RunConfig, unet: nn.Module, split: Split, splits: Splits, accelerator: Accelerator) -> bool:
    """True if the main rank's micro-batches are faster compiled, and no rank failed."""
    shape, device = input_shape(config, splits.train.image_shape), accelerator.device

    def timed(forward: Callable[..., Any]) -> tuple[float, Tensor]:
        started = time.perf_counter()
        prediction = micro_step(unet, shape, split.micro_batch_size, accelerator.mixed_precision, forward)
        if device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - started, prediction

    with untouched(unet), attention_kernels(config.model.attention_backend, device, accelerator.mixed_precision):
        plain = min(timed(unet.forward)[0] for _ in range(2))  # the first finds kernels and memory
        micro_batches = config.train.num_images_seen / split.micro_batch_size / split.world_size
        if broadcast_object_list([plain * micro_batches])[0] < WORTH_TRYING:
            return False
        say(accelerator, "train.compile auto: trying torch.compile, which takes about a minute")
        before, (of_plain, of_compiled, failed) = unet._compiled_call_impl, ([plain], [plain], "")
        try:
            unet.compile()
            _, compiled = timed(unet)
            _, expected = timed(unet.forward)
            if not (compiled - expected).norm() <= MOST_APART * expected.norm():
                failed = "its numbers are not those of the plain network"
            else:
                pairs = [(timed(unet.forward)[0], timed(unet)[0]) for _ in range(ROUNDS)]
                of_plain, of_compiled = ([pair[side] for pair in pairs] for side in (0, 1))
        except Exception as error:  # whatever a compiler says: training goes on without it
            failed = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        finally:
            unet._compiled_call_impl = before  # there is no public way back
    times = broadcast_object_list([(median(of_plain), median(of_compiled))])[0]
    failed = next((each for each in gather_object([failed]) if each), "")
    is_faster = not failed and times[1] <= MOST_OF_EAGER * times[0]
    why = failed or f"a micro-batch takes {times[1] * 1e3:.0f} ms compiled, {times[0] * 1e3:.0f} ms without"
    say(accelerator, f"train.compile auto: {'yes' if is_faster else 'no'}, {why}")
    return is_faster
