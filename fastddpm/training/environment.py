"""Devices, precision and processes: what the launcher gives, checked before anything is written."""

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, parse_flag_from_env
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastddpm.config import DCGANTrainConfig, RunConfig, TrainConfig
from fastddpm.training.allocator import give_freed_memory_back, keep_freed_memory

Precision = Literal["no", "bf16", "fp16"]


@contextmanager
def borrowed_process() -> Iterator[None]:
    """Leave the process as it was found: its number of threads and what it does with freed memory, and no Accelerate
    state that was not there."""
    num_threads, kernels = torch.get_num_threads(), _deterministic_kernels()
    had_accelerator, had_group = bool(AcceleratorState._shared_state), bool(PartialState._shared_state)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
        _use_kernels(*kernels)
        give_freed_memory_back()
        if not had_accelerator:
            AcceleratorState._reset_state(reset_partial_state=not (had_group or torch.distributed.is_initialized()))


def use_deterministic_kernels() -> None:
    """Refuse kernels whose sums depend on chance; `borrowed_process` takes it back."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _use_kernels(True, False, False)


def _deterministic_kernels() -> tuple[bool, bool, bool]:
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    return torch.are_deterministic_algorithms_enabled(), fills, torch.backends.cudnn.benchmark


def _use_kernels(are_deterministic: bool, fills_memory: bool, tries_several: bool) -> None:
    torch.use_deterministic_algorithms(are_deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = fills_memory  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = tries_several


def make_accelerator(config: TrainConfig | DCGANTrainConfig, **options: Any) -> Accelerator:
    """The `Accelerator` of a run; every rank calls it. Devices are CUDA, ROCm and XPU ones, else the CPU: Apple's MPS
    has no float64, in which losses are summed. `options` are further arguments of `Accelerator`.

    Raises: ValueError: fewer processes than asked for, a precision that the launcher or the device contradicts, or
        accumulation set by the launcher (here it is derived from batch_size and micro_batch_size).
    """
    cpu = runs_on_cpu()
    precision = resolve_precision(config.mixed_precision, cpu)
    _check_launcher()
    if cpu:
        _prepare_cpu(config.num_threads)
    # Buffers are averaged by the loop, not copied from rank 0 at each forward pass.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    group = InitProcessGroupKwargs(timeout=_PATIENCE)
    accelerator = Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[ddp, group], **options)
    _check_num_processes("train.num_processes", config.num_processes, accelerator.num_processes)
    return accelerator


def join_processes(num_threads: int | None, num_processes: int | None) -> PartialState:
    """The other processes and this one's device, for work that needs no `Accelerator`; every rank calls it.

    Raises: ValueError: fewer processes than the launcher, or the user, asked for.
    """
    _check_launched()
    cpu = runs_on_cpu()
    if cpu:
        _prepare_cpu(num_threads)
    state = PartialState(cpu=cpu, timeout=_PATIENCE)
    _check_num_processes("num_processes", num_processes, state.num_processes)
    return state


_PATIENCE = timedelta(hours=6)
"""of ranks that wait while one reads images in, or draws"""


def say(state: Accelerator | PartialState, text: str) -> None:
    """A line on the console, once for all ranks on all machines."""
    if state.is_main_process:
        print(text, flush=True)


def store_of_this_start() -> Any:
    """A part of the process group's store that no other start of the same job has written to; every rank calls it. A
    launcher may keep one store for all of them. None: there is one process."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return None
    name = broadcast_object_list([uuid.uuid4().hex])[0]
    return distributed.PrefixStore(f"fastddpm/{name}", distributed.distributed_c10d._get_default_store())


def _check_num_processes(setting: str, wanted: int | None, got: int) -> None:
    if wanted is not None and got != wanted:
        raise ValueError(
            f"{setting} asks for {wanted} processes, got {got}; "
            f"see launch/README.md for the launcher's options, or leave {setting} out"
        )


def runs_on_cpu() -> bool:
    """Whether there is no device of ours, or the launcher asks for the CPU."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not (torch.cuda.is_available() or torch.xpu.is_available())


def _prepare_cpu(num_threads: int | None) -> None:
    torch.set_num_threads(num_threads or _fair_share_of_cores())
    keep_freed_memory()


def _fair_share_of_cores() -> int:
    """`accelerate launch` and torchrun set one thread a process, whatever the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _check_launched() -> None:
    env = os.environ
    if "ACCELERATE_MIXED_PRECISION" in env and "MASTER_ADDR" in env and "WORLD_SIZE" not in env:
        raise ValueError(
            "accelerate launch was asked for several processes but started one, as it does with --cpu; use "
            "`ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N train.py`, or `torchrun`"
        )


def _check_launcher() -> None:
    _check_launched()
    if int(os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")) > 1:
        raise ValueError(
            "the launcher sets gradient_accumulation_steps; accumulation follows from train.batch_size and "
            "train.micro_batch_size here: set those, and leave the launcher's option out"
        )


def resolve_precision(asked: str, cpu: bool) -> Precision:
    """The precision to train in; `auto` is the launcher's if it names one, else bf16 where the device is faster in it.

    In a process that has made an `Accelerator` already, that one decides: Accelerate keeps one precision a process.
    """
    if AcceleratorState._shared_state:
        found = AcceleratorState().mixed_precision
        if asked not in ("auto", found):
            raise ValueError(
                f"train.mixed_precision is {asked!r}, but this process has an Accelerator of {found!r}; use "
                f"{found!r} or auto, or train in a process of its own"
            )
        return found
    launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked == "auto":
        chosen = launcher if launcher != "no" else ("bf16" if _computes_bf16(cpu) else "no")
    elif launcher not in ("no", asked):
        raise ValueError(
            f"train.mixed_precision is {asked!r}, but the launcher asks for {launcher!r}; "
            f"set one of them, or train.mixed_precision auto"
        )
    else:
        chosen = asked
    if chosen == "fp16" and cpu:
        raise ValueError("mixed precision fp16 needs a GPU and there is none; use --train.mixed_precision auto")
    if chosen not in ("no", "bf16", "fp16"):
        raise ValueError(f"the launcher asks for mixed precision {chosen!r}; use 'no', 'bf16' or 'fp16'")
    return chosen  # type: ignore[return-value]


def _computes_bf16(cpu: bool) -> bool:
    if not cpu:
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported()
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return cpu_is_faster_in_bf16(capabilities)


def cpu_is_faster_in_bf16(capabilities: Mapping[str, Any]) -> bool:
    """Whether bfloat16 pays on a CPU; a rule, no measurement, so that all ranks and every restart decide alike.

    Intel's AVX512-BF16 without AMX (a virtual machine may hide it) multiplies bfloat16 at 0.6 of float32's rate, and a
    training step took 1.45 times as long; AMD's multiplies it at 2.7 times float32's rate. (docs/log.md, 2026-11-25)

    Args:
        capabilities: of `torch.cpu.get_capabilities()`.
    """
    if capabilities.get("amx_bf16") or capabilities.get("bf16"):  # Intel's matrix unit; Arm
        return True
    is_intel = "intel" in str(capabilities.get("cpu_name", "")).lower()
    return bool(capabilities.get("avx512_bf16")) and not is_intel


def can_compile(cpu: bool) -> bool:
    """Whether torch.compile finds what it needs: on a CPU, a C++ compiler."""
    compilers = (os.environ.get("CXX"), "g++", "clang++", "c++")
    return not cpu or any(shutil.which(name) for name in compilers if name)


def micro_batch_sizes(batch_size: int, world_size: int) -> list[int]:
    """The divisors of a batch that leave every process a micro-batch, from the largest to 1."""
    return [
        size for size in range(batch_size, 0, -1) if batch_size % size == 0 and batch_size // size >= world_size
    ] or [1]


def attention_kernels(config: RunConfig, device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """On a CPU in bfloat16, if no backend is asked for, plain attention: the fused kernel's backward pass took 17 ms
    where this takes 3 (64 images, 4 heads of 49 tokens, two cores of an AMD EPYC). In float32 the fused kernel is the
    faster one: 1.5 times as many steps of a UNet2DModel with 196 tokens."""
    plain = device.type == "cpu" and precision == "bf16" and config.model.attention_backend is None
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()


@dataclass(frozen=True)
class Split:
    """How the micro-batches of a step are dealt to the ranks: neighbours to one rank, counts differ by at most one."""

    batch_size: int
    micro_batch_size: int
    rank: int
    world_size: int

    @classmethod
    def of(cls, config: TrainConfig | DCGANTrainConfig, rank: int, world_size: int) -> "Split":
        """Raises: ValueError: sizes that do not divide, or more processes than micro-batches."""
        micro = config.micro_batch_size
        if micro == "auto":  # for now: what fits is found when the network is there
            micro = micro_batch_sizes(config.batch_size, world_size)[0]
        if micro is None:
            if config.batch_size % world_size:
                raise ValueError(
                    f"train.batch_size ({config.batch_size}) is no multiple of the {world_size} processes; "
                    f"use --train.batch_size {max(1, config.batch_size // world_size) * world_size}, "
                    f"or set train.micro_batch_size"
                )
            micro = config.batch_size // world_size
        if world_size > config.batch_size // micro:
            raise ValueError(
                f"{world_size} processes share {config.batch_size // micro} micro-batches (train.batch_size "
                f"{config.batch_size} / train.micro_batch_size {micro}); use a smaller micro_batch_size, "
                f"a larger batch_size or fewer processes"
            )
        if getattr(config, "determinism", None) == "elastic" and world_size & (world_size - 1):
            raise ValueError(
                f"train.determinism elastic adds micro-batches pairwise and wants 1, 2, 4, ... processes, got "
                f"{world_size}; use one of these numbers, or another train.determinism"
            )
        return cls(config.batch_size, micro, rank, world_size)

    @property
    def num_micro_batches(self) -> int:
        """M, of a step over all ranks."""
        return self.batch_size // self.micro_batch_size

    @property
    def loss_scale(self) -> float:
        """What a micro-batch's mean loss is multiplied by, so that DDP's mean over ranks is the mean over the batch."""
        return self.world_size / self.num_micro_batches

    def positions(self, step: int) -> list[torch.Tensor]:
        """This rank's micro-batches of a step: the places of their images in the run's global sequence, int64."""
        first = step * self.batch_size
        return [
            torch.arange(first + m * self.micro_batch_size, first + (m + 1) * self.micro_batch_size)
            for m in range(*(self.num_micro_batches * rank // self.world_size for rank in (self.rank, self.rank + 1)))
        ]
