"""The accelerate configs under launch/: read by accelerate's own loader, and the CPU one run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from tests.training.runs import TINY, free_port

PROJECT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((PROJECT / "launch").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_read_by_accelerates_loader(path):
    config = load_config_from_file(str(path))
    machines, per_machine = {"cpu-2": (1, 2), "gpu-1": (1, 1), "gpu-8": (1, 8), "nodes-2": (2, 8)}[path.stem]
    assert config.num_machines == machines
    assert config.num_processes == machines * per_machine
    assert config.use_cpu is (path.stem == "cpu-2")


def test_every_config_is_in_the_readme():
    text = (PROJECT / "launch" / "README.md").read_text()
    assert len(CONFIGS) == 4
    for path in CONFIGS:
        assert f"[{path.name}]({path.name})" in text


def test_cpu_config_trains_on_two_processes(tmp_path, image_folder):
    (tmp_path / "tiny.yaml").write_text("seed: 0\n")
    settings = {
        "config": str(tmp_path / "tiny.yaml"), **TINY, "data.source": str(image_folder),
        "data.cache_dir": str(tmp_path / "cache"),
        "output_dir": str(tmp_path / "run"), "train.num_processes": "2",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--config_file", PROJECT / "launch" / "cpu-2.yaml",
         "--main_process_port", str(free_port()), PROJECT / "train.py",
         *(word for k, v in settings.items() for word in (f"--{k}", v))],
        capture_output=True, text=True, check=False, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (newest,) = (tmp_path / "run" / "checkpoints").glob("step-00000020")
    assert json.loads((newest / "manifest.json").read_text())["world_size"] == 2
