"""Triton where it is installed; the one place that asks (macOS and Windows have none).

How every kernel here is launched. An image's elements are cut into chunks of BLOCK; a program does one chunk of one
image, so that what belongs to an image (timestep, position, coefficients) is read once and lives in scalar registers.
A thread holds four elements: one Philox block, whose four normals it makes without help from its neighbours, and 16
bytes of float32. So 256 threads do a chunk of 1024: 8 warps of 32 on NVIDIA, 4 of 64 on AMD. Larger chunks waste more
of the last one of an image (784 elements of an MNIST digit), smaller ones read the coefficients more often.

FP fusion. A launch passes `enable_fp_fusion=False`, but under torch.compile Inductor drops that option (it keeps
num_warps and num_stages only) and takes Triton's default. So the kernels leave nothing to fuse: what may be one
instruction is written as `tl.fma`, and no other product goes straight into a sum. tests/kernels/test_aot.py compiles
each kernel both ways and compares the machine code.
"""

import contextlib
import functools
import logging
import subprocess
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton, tl = None, SimpleNamespace(constexpr=object)
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # it warns of that at each operator

BLOCK = 1024
"""elements of a chunk"""
logger, _is_broken = logging.getLogger(__name__), False
LAUNCH = {"BLOCK": BLOCK, "num_warps": 4 if torch.version.hip else 8, "enable_fp_fusion": False}


def jit(function: Callable | None = None, **options: Any) -> Any:
    """`triton.jit`; without Triton the function stays a plain one, which nobody calls."""
    if function is None:
        return lambda decorated: jit(decorated, **options)
    return function if triton is None else triton.jit(function, **options)


def runs_triton(x: Tensor) -> bool:
    """True if kernels are launched for this tensor: it is on CUDA or ROCm, and Triton is there."""
    return triton is not None and x.is_cuda


def launched_or_not(x: Tensor, launched: Callable[[], Any], reference: Callable[[], Any]) -> Any:
    """Launch, or compute as the reference does where nothing is launched: from the first launch on that cannot be
    compiled (no C compiler, no Python.h), which is said once."""
    global _is_broken
    if _is_broken or not runs_triton(x):
        return reference()
    try:
        return launched()
    except (RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        is_of_device = any(sign in str(error) for sign in ("out of memory", "CUDA error", "HIP error"))
        if is_of_device or torch.compiler.is_compiling():  # while something is traced nothing is launched
            raise
        _is_broken = True
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        logger.warning(f"Triton cannot compile here ({what}): torch's operations compute instead, slower, from now on; "
                       f"install a C compiler and Python's headers (gcc, python3-dev)")  # fmt: skip
        return reference()


def operator(name: str, reference: Callable, launched: Callable) -> Any:
    """The operator that launches a kernel, and runs its reference on tensors without Triton. Types and meaning of the
    arguments stand at the reference alone."""

    @functools.wraps(reference)
    def either(*arguments: Any) -> Any:
        return launched_or_not(arguments[0], lambda: launched(*arguments), lambda: reference(*arguments))

    return torch.library.triton_op(f"fastddpm::{name}", either, mutates_args={})


def launch(kernel: Any, x: Tensor, num_programs: int, *arguments: Any, **options: Any) -> None:
    """Launch a kernel on the device of `x`, which need not be the current one."""
    device = torch.cuda.device(x.device) if torch.cuda.is_available() else contextlib.nullcontext()
    with device:
        torch.library.wrap_triton(kernel)[(num_programs,)](*arguments, **LAUNCH, **options)


def num_chunks(num_elements: int) -> int:
    """Programs that an image of so many elements takes."""
    return -(-num_elements // BLOCK)
