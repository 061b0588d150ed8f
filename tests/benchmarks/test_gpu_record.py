"""The record of a GPU, tried where there is none."""

import json
import subprocess
import sys

import pytest

from benchmarks import gpu, gpu_record

SCRIPT = gpu_record.__file__


def test_without_a_gpu_it_says_so():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr.strip() == "gpu_record: there is no GPU that torch sees; --cpu --tiny tries the script without one"
    )


def test_one_failure_does_not_end_the_rest(monkeypatch):
    ran = []

    def run(words, **_):
        ran.append(words[2])
        return subprocess.CompletedProcess(words, len(ran) == 1)

    monkeypatch.setattr(gpu.subprocess, "run", run)
    assert gpu.run_all(gpu.ALL) == [next(iter(gpu.ALL))]
    assert ran == list(gpu.ALL)


@pytest.mark.slow
def test_checks_and_sizes_leave_records(tmp_path):
    only = ["benchmarks.gpu_checks", "benchmarks.gpu_sizes"]
    words = [sys.executable, SCRIPT, "--cpu", "--tiny", "--out", str(tmp_path), "--only", *only]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    checks = json.loads((tmp_path / "gpu_checks.json").read_text())
    assert all(bar["is_reached"] for bar in checks["bars"])
    sizes = json.loads((tmp_path / "gpu_sizes.json").read_text())
    assert {"28x28: ours", "28x28: bare loop"} <= {line["side"] for line in sizes["rows"]}
