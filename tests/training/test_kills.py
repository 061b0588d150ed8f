"""F1, F5: runs that are killed end as those that are not. FAULTS=full (`make faults`) counts more of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.matrix import CHOICES

PROJECT = Path(__file__).resolve().parents[2]
IS_FULL = os.environ.get("FAULTS") == "full"


def found_by(script, *words):
    """What a script says in its last line."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.training.{script}", *map(str, words)],
        cwd=PROJECT, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    print(script, *words[1:], done.stdout.splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "count"), [(1, 80 if IS_FULL else 8), (2, 20 if IS_FULL else 2)])
def test_f1_killed_at_random_moments_a_run_ends_as_if_it_was_not(tmp_path, processes, count):
    found = found_by("kills", tmp_path / "kills", "--count", count, "--processes", processes)
    assert found["kills"] == found["equal"] == sum(found["killed at"].values()) == count


@pytest.mark.slow
def test_f5_killed_in_an_epoch_a_run_ends_as_if_it_was_not(tmp_path):
    """All 64 combinations, or 13 that hold every pair of choices."""
    every = 1 if IS_FULL else 5
    found = found_by("matrix", tmp_path / "matrix", "--every", every)
    assert found["combinations"] == found["equal"] == -(-(2 ** len(CHOICES)) // every)
