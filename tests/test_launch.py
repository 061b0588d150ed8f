"""The files under launch/: the configs are read by accelerate's own loader, and the CPU one run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from accelerate.commands import launch
from accelerate.commands.config.config_args import load_config_from_file

from tests.training.runs import TINY, free_port

PROJECT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((PROJECT / "launch").glob("*.yaml"))
SCRIPTS = sorted(path for path in (PROJECT / "launch").iterdir() if path.suffix in (".sh", ".sbatch"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_read_by_accelerates_loader(path):
    config = load_config_from_file(str(path))
    machines, per_machine = {"cpu-2": (1, 2), "gpu-1": (1, 1), "gpu-8": (1, 8), "nodes-2": (2, 8)}[path.stem]
    assert config.num_machines == machines
    assert config.num_processes == machines * per_machine
    assert config.use_cpu is (path.stem == "cpu-2")


def documented() -> list[str]:
    """What follows `accelerate launch` in each command that README, docs, configs and launch/ give."""
    pages = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")), *sorted((PROJECT / "launch").iterdir())]
    pages += sorted((PROJECT / "configs").iterdir())
    texts = [page.read_text() for page in pages if page.name != "log.md"]
    found = [line for text in texts for line in re.findall(r"accelerate launch ([^`\n#|]*)", text)]
    return [line for line in found if re.search(r"train\.py|-m fastddpm", line)]


def test_no_documented_command_makes_accelerate_warn(monkeypatch):
    """On a machine of many cores, where Accelerate says more."""
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 64)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    said = []
    monkeypatch.setattr(launch.logger, "warning", said.append)
    monkeypatch.chdir(PROJECT)
    assert len(documented()) >= 5
    for line in documented():
        words = shlex.split(re.sub(r"\bFILE\b", "launch/gpu-1.yaml", line))
        launch._validate_launch_command(launch.launch_command_parser().parse_args(words))
        assert (line, said) == (line, [])


def test_every_file_is_in_the_readme_and_says_whether_it_was_run():
    files = [path for path in (PROJECT / "launch").iterdir() if path.name != "README.md"]
    assert len(files) == len(CONFIGS) + len(SCRIPTS) == 6
    rows = (PROJECT / "launch" / "README.md").read_text().splitlines()
    for path in files:
        (row,) = (row for row in rows if row.startswith(f"| [{path.name}]({path.name}) |"))
        assert re.search(r"\| (run|checked), 20\d\d-\d\d-\d\d\b", row), row


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_is_whole_and_can_be_started(path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_text().startswith("#!/usr/bin/env bash\n")
    assert path.suffix == ".sbatch" or os.access(path, os.X_OK)


def test_elastic_script_refuses_a_fixed_number_of_processes():
    done = subprocess.run(
        [PROJECT / "launch" / "torchrun-elastic.sh", "--train.num_processes", "2"],
        capture_output=True, text=True, check=False, env={**os.environ, "RDZV_ENDPOINT": "node1:29500"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "train.num_processes fixes a number that is to vary here; leave it out" in done.stderr


@pytest.mark.slow
def test_cpu_config_trains_on_two_processes(tmp_path, image_folder):
    (tmp_path / "tiny.yaml").write_text("seed: 0\n")
    settings = {
        "config": str(tmp_path / "tiny.yaml"), **TINY, "data.source": str(image_folder),
        "data.cache_dir": str(tmp_path / "cache"),
        "out": str(tmp_path / "run"), "train.num_processes": "2",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--config_file", PROJECT / "launch" / "cpu-2.yaml",
         "--num_cpu_threads_per_process", "1", "--main_process_port", str(free_port()), PROJECT / "train.py",
         *(word for k, v in settings.items() for word in (f"--{k}", v))],
        capture_output=True, text=True, check=False, timeout=480,
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not re.search("not passed|OMP_NUM_THREADS", done.stderr), done.stderr
    (newest,) = (tmp_path / "run" / "checkpoints").glob("step-00000020")
    assert json.loads((newest / "manifest.json").read_text())["world_size"] == 2
