"""The process: its ranks, device, threads, precision and memory, the console, and which rank draws what.

All of it is what the launcher gives, checked before anything is written.
"""

import ctypes
import os
import platform
import shlex
import shutil
import sys
import sysconfig
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, parse_flag_from_env
from tqdm import tqdm

from fastddpm.launcher import check_launcher
from fastddpm.precision import Precision, of_card_in_words, resolve_precision


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


def make_accelerator(
    *,
    mixed_precision: str,
    num_threads: int | None,
    num_processes: int | None,
    takes_compile: bool = False,
    **options: Any,
) -> Accelerator:
    """The `Accelerator` of a run; every rank calls it. Devices are CUDA, ROCm and XPU ones, else the CPU: Apple's MPS
    has no float64, in which losses are summed. `options` are further arguments of `Accelerator`.

    Raises: ValueError: fewer processes than asked for, a precision that the launcher or the device contradicts, or
        what `check_launcher` refuses.
    """
    cpu = runs_on_cpu()
    check_launcher(takes_compile=takes_compile)
    precision = _precision_of_process(mixed_precision) or resolve_precision(mixed_precision, cpu)
    # Buffers are averaged by the loop, not copied from rank 0 at each forward pass.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    group = InitProcessGroupKwargs(timeout=_PATIENCE)
    # What is compiled is compiled here, before DDP; the launcher's backend would have Accelerate compile DDP too.
    accelerator = Accelerator(
        cpu=cpu, mixed_precision=precision, dynamo_backend="no", kwargs_handlers=[ddp, group], **options
    )
    if cpu:
        _prepare_cpu(num_threads)
    _check_num_processes("train.num_processes", num_processes, accelerator.num_processes)
    for line in of_card_in_words(cpu, mixed_precision, precision):
        say(accelerator, line)
    return accelerator


def join_processes(num_threads: int | None, num_processes: int | None, *, takes_compile: bool = False) -> PartialState:
    """The other processes and this one's device, for work that needs no `Accelerator`; every rank calls it.

    Raises: ValueError: fewer processes than the launcher, or the user, asked for; what `check_launcher` refuses.
    """
    check_launcher(takes_compile=takes_compile)
    cpu = runs_on_cpu()
    state = PartialState(cpu=cpu, timeout=_PATIENCE)
    if cpu:
        _prepare_cpu(num_threads)
    _check_num_processes("num_processes", num_processes, state.num_processes)
    for line in of_card_in_words(cpu):
        say(state, line)
    return state


_PATIENCE = timedelta(hours=6)
"""longest wait of ranks while one reads images in, or draws"""


def say(state: Accelerator | PartialState, text: str) -> None:
    """A line on the console, once for all ranks on all machines; beside a progress bar, not into it."""
    if state.is_main_process:
        with tqdm.external_write_mode():
            print(text, flush=True)


def program() -> str:
    """`fastddpm` as a shell in this folder finds it, whether or not an environment is activated."""
    own, found = Path(sysconfig.get_path("scripts"), "fastddpm"), shutil.which("fastddpm")
    if found is not None and (not own.exists() or own.samefile(found)):
        return "fastddpm"
    if not own.exists():
        return f"{shlex.quote(sys.executable)} -m fastddpm"
    here = Path.cwd()
    return shlex.quote(str(own.relative_to(here) if own.is_relative_to(here) else own))


def counted(count: int, noun: str) -> str:
    """A number with its noun: "1 image", "2,000 images", "2 processes"."""
    plural = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{plural}"


def some(names: Sequence[str], most: int = 5) -> str:
    """The first of several names, and whether there are more: "a, b, ..."."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


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
    """True if there is no device of ours, or the launcher asks for the CPU."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not (torch.cuda.is_available() or torch.xpu.is_available())


def _prepare_cpu(num_threads: int | None) -> None:
    """Take the threads asked for; after Accelerate has joined the processes, which sets them too if
    OMP_NUM_THREADS is unset."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fair_share = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # launchers set one thread a process
    torch.set_num_threads(num_threads or fair_share)
    keep_freed_memory()


def _precision_of_process(asked: str) -> Precision | None:
    """Precision of the `Accelerator` that this process has made: Accelerate keeps one a process. None: it has none."""
    if not AcceleratorState._shared_state:
        return None
    found: Precision = AcceleratorState().mixed_precision
    if asked not in ("auto", found):
        raise ValueError(
            f"train.mixed_precision is {asked!r}, but this process has an Accelerator of {found!r}; use {found!r} or "
            "auto, or train in a process of its own"
        )
    return found


def can_compile(cpu: bool) -> bool:
    """True if torch.compile finds what it needs: on a CPU, a C++ compiler."""
    compilers = (os.environ.get("CXX"), "g++", "clang++", "c++")
    return not cpu or any(shutil.which(name) for name in compilers if name)


def micro_batch(index: int, num_images: int, size: int) -> range:
    """The places of a micro-batch's images; the last micro-batch may be short."""
    return range(index * size, min((index + 1) * size, num_images))


def dealt(num_images: int, size: int, rank: int, world_size: int) -> range:
    """A rank's micro-batches of `size`, dealt in turn: which ones there are does not depend on the number of ranks."""
    return range(rank, -(-num_images // size), world_size)


def versions() -> str:
    """The versions that results depend on, on one line."""
    found = [f"{name} {version(name)}" for name in ("fastddpm", "torch", "diffusers", "accelerate")]
    return ", ".join([*found, f"Python {platform.python_version()}"])


def device_name(device: torch.device) -> str:
    """Maker's name of a device; of a CPU also how many threads work."""
    threads = f", {torch.get_num_threads()} of {os.cpu_count()} threads" if device.type == "cpu" else ""
    return device_model(device) + threads


def device_model(device: torch.device) -> str:
    """Maker's name of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "xpu":
        return torch.xpu.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


@contextmanager
def out_of_memory_says(explanation: Callable[[], str]) -> Iterator[None]:
    """Let work that does not fit end with one line.

    Raises: OutOfMemory: instead of what torch, the allocator or Python raise.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(explanation()) from error


class OutOfMemory(ValueError):
    """A step did not fit; the message names the settings that help."""


def explained_out_of_memory_of_drawing(micro_batch_size: int, advice: str) -> AbstractContextManager[None]:
    """Explain running out of memory in `fastddpm sample` and `vary`: `advice` follows the option that helps."""
    way = f"--micro_batch_size {micro_batch_size // 2}" if micro_batch_size > 1 else "a machine with more of it"
    return out_of_memory_says(
        lambda: f"out of memory while drawing, with micro_batch_size {micro_batch_size}; use {way}{advice}"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """True for an error of a full memory, of a GPU or of the host: not all of them have a class of their own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS_OF_MEMORY)


_SIGNS_OF_MEMORY = (
    *("DefaultCPUAllocator", "Cannot allocate memory", "std::bad_alloc"),
    *("_STATUS_ALLOC_FAILED", "]: out of memory", "error: out of memory"),  # cuBLAS and cuDNN, Triton, CUDA itself
)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_OF_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next step, instead of giving it to the kernel and asking for it again, page
    by page: a training step of the paper's U-Net does not change its sizes, and is 1.08 to 1.13 times as fast on a CPU
    (docs/log.md, 2026-11-25). The most memory that the process holds grew by 5 %.

    Nothing happens with another C library, or if the user's environment says what malloc should do.
    """
    if libc := _glibc():
        libc.mallopt(_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_TRIM_THRESHOLD, -1)


def give_freed_memory_back() -> None:
    """Undo `keep_freed_memory`: glibc's own largest thresholds, and what is free goes to the kernel now."""
    if libc := _glibc():
        libc.mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(_TRIM_THRESHOLD, 64 * 2**20)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _OF_USERS):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
