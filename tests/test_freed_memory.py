"""Freed memory stays with the process while a run goes on. In processes of their own: malloc belongs to the process."""

import os
import platform
import subprocess
import sys

import pytest

MEASURED = """
import resource, sys
import torch
from fastddpm.process import give_freed_memory_back, keep_freed_memory
import psutil

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.zeros(24, 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

resident = lambda: psutil.Process().memory_info().rss
if "keep" in sys.argv:
    keep_freed_memory()
page_faults()  # the first time it must come from the kernel
faults, held = page_faults(), resident()
give_freed_memory_back()
print(faults, held - resident())
"""


def measured(*words: str, **env: str) -> tuple[int, int]:
    """Page faults of eight tensors of 96 MiB, one after the other; bytes that are given back at the end."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, *words], env=os.environ | env, capture_output=True, text=True, check=True
    )
    faults, returned = run.stdout.split()
    return int(faults), int(returned)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_freed_memory_is_kept_and_given_back():
    as_shipped, _ = measured()
    kept, returned = measured("keep")
    assert as_shipped > 8 * 96 * 2**20 / (2 * 2**20)  # at the least a fault a huge page, each time
    assert kept < as_shipped / 20
    assert returned > 90 * 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_what_the_user_says_of_malloc_stays():
    faults, returned = measured("keep", MALLOC_MMAP_THRESHOLD_="131072")
    assert faults > 300
    assert returned < 2**20
