"""F1: kill -9 of all ranks at random moments of a run; `make faults` counts more of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "share"), [(1, 0.8), (2, 0.2)])
def test_f1_killed_at_random_moments_a_run_ends_as_if_it_was_not(tmp_path, processes, share):
    count = round(share * int(os.environ.get("KILLS", "10")))
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.kills", str(tmp_path / "kills"), "--count", str(count),
         "--processes", str(processes)],
        cwd=PROJECT, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(processes, "process(es):", found)
    assert found["kills"] == found["equal"] == sum(found["killed at"].values()) == count
