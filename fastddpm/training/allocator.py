"""What the C library does with memory that a CPU training step has freed."""

import ctypes
import os
import sys

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
