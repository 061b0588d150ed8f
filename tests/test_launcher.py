"""What `accelerate launch` asks for by its config: taken, or refused in a line of ours."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from accelerate.commands import launch
from accelerate.utils.launch import prepare_multi_gpu_env

from fastddpm.config import TrainConfig
from fastddpm.launcher import as_launched, check_launcher
from fastddpm.process import borrowed_process, make_accelerator
from tests.forked import free_port, run_python
from tests.training.runs import TINY, some_images, words_of

PROJECT = Path(__file__).resolve().parents[1]
TWO_ON_CPU = yaml.safe_load((PROJECT / "launch" / "cpu-2.yaml").read_text())
ENGINES = {
    "FSDP": {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2}},
    "Megatron-LM": {"distributed_type": "MEGATRON_LM", "megatron_lm_config": {"megatron_lm_tp_degree": 2}},
    "parallelism_config": {"parallelism_config": {"parallelism_config_dp_replicate_size": 2}},
}


def config_file(folder: Path, **changed) -> Path:
    path = folder / "accelerate.yaml"
    path.write_text(yaml.safe_dump({**TWO_ON_CPU, **changed}))
    return path


def launched(monkeypatch, path: Path) -> None:
    """This process has the environment that `accelerate launch` makes of a config."""
    words = launch.launch_command_parser().parse_args(["--config_file", str(path), "train.py"])
    for name, value in prepare_multi_gpu_env(launch._validate_launch_command(words)[0]).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("engine", ENGINES)
def test_another_engine_is_refused_by_its_name(tmp_path, monkeypatch, engine):
    launched(monkeypatch, config_file(tmp_path, **ENGINES[engine]))
    wanted = (
        f"the launcher asks for {engine}, and processes share their work by DDP here.*leave the section of {engine}"
    )
    with pytest.raises(ValueError, match=wanted):
        check_launcher()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true", "the launcher asks for DeepSpeed"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "the launcher asks for mixed precision 'fp8'"),
    ],
)
def test_what_the_launcher_itself_takes_with_other_packages_only(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        check_launcher(takes_compile=True)


def test_inductor_is_train_compile(tmp_path, monkeypatch):
    launched(monkeypatch, config_file(tmp_path))
    assert as_launched(TrainConfig(compile=False)).compile is False
    launched(monkeypatch, config_file(tmp_path, dynamo_config={"dynamo_backend": "INDUCTOR"}))
    assert as_launched(TrainConfig()).compile is True
    check_launcher(takes_compile=True)
    with pytest.raises(ValueError, match="dynamo_backend INDUCTOR, and this is not compiled; set it to 'no'"):
        check_launcher()


def test_accelerate_does_not_compile_what_is_compiled_here(monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    with borrowed_process():
        made = make_accelerator(mixed_precision="no", num_threads=1, num_processes=1, takes_compile=True)
        assert made.state.dynamo_plugin.backend.value == "NO"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dynamo_backend": "EAGER"}, "dynamo_backend EAGER; use INDUCTOR, or --train.compile true"),
        (
            {"dynamo_backend": "INDUCTOR", "dynamo_mode": "max-autotune"},
            "asks for dynamo_mode max-autotune, and networks",
        ),
        ({"dynamo_backend": "INDUCTOR", "dynamo_use_fullgraph": True}, "asks for dynamo_use_fullgraph True, and"),
    ],
)
def test_other_compilers_are_refused(tmp_path, monkeypatch, config, message):
    launched(monkeypatch, config_file(tmp_path, dynamo_config=config))
    with pytest.raises(ValueError, match=message):
        check_launcher(takes_compile=True)


def start(folder: Path, launcher: Path, *words: str, **settings: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if name != "WORLD_SIZE"}
    given = [word for name, value in settings.items() for word in (f"--{name}", value)]
    return subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--config_file", launcher, "--main_process_port",
         str(free_port()), "--num_cpu_threads_per_process", "1", *words, "--out", folder / "run", *given],
        capture_output=True, text=True, check=False, timeout=300, env=env,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_launch_with_another_engine_ends_in_a_line(tmp_path, engine):
    done = start(tmp_path, config_file(tmp_path, **ENGINES[engine]), str(PROJECT / "train.py"))
    assert done.returncode != 0
    assert f"fastddpm: error: rank 0: the launcher asks for {engine}" in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_launch_with_inductor_compiles_the_run(tmp_path):
    images = some_images(tmp_path / "images")
    one = {"distributed_type": "NO", "num_processes": 1, "dynamo_config": {"dynamo_backend": "INDUCTOR"}}
    (tmp_path / "empty.yaml").write_text("seed: 0\n")
    settings = {
        "config": str(tmp_path / "empty.yaml"), **TINY, "train.num_images_seen": "16", "data.source": str(images),
        "data.cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip
    done = start(tmp_path, config_file(tmp_path, **one), str(PROJECT / "train.py"), **settings)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]["compile"] is True


VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""all that torchrun, Slurm scripts, Kubeflow, Ray and SkyPilot have in common"""


def trained_by_two(folder: Path, before: str = "", env: Mapping[str, str] = os.environ) -> list[str]:
    """Train on two processes that know of each other by these variables only.  Returns: what each said at its end."""
    words = words_of(folder / "run", some_images(folder / "images"), None, before, {"train.num_processes": "2"})
    others = {name: value for name, value in env.items() if name not in VARIABLES and "ACCELERATE" not in name}
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    given = [{**others, **meeting, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda variables: run_python(words, env=variables), given))
    assert [done.returncode for done in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    manifest = json.loads((folder / "run" / "checkpoints" / "step-00000020" / "manifest.json").read_text())
    assert manifest["world_size"] == 2
    return [done.stdout for done in ended]


@pytest.mark.slow
def test_torchruns_variables_are_enough(tmp_path):
    trained_by_two(tmp_path)


@pytest.mark.slow
def test_a_process_group_that_somebody_else_made_is_taken(tmp_path):
    """As Ray and other callers in Python do it; it is left as it was."""
    made = (
        "import atexit\n"
        "from torch import distributed\n"
        "distributed.init_process_group('gloo')\n"
        "atexit.register(lambda: print('still', distributed.get_world_size(), 'in the group', flush=True))\n"
    )
    for said in trained_by_two(tmp_path, made):
        assert said.rstrip().endswith("still 2 in the group")


@pytest.mark.slow
def test_torchrun_is_told_by_its_own_variables(tmp_path):
    """PET_*, which Kubeflow Trainer sets."""
    words = words_of(tmp_path / "run", some_images(tmp_path / "images"), None, "", {"train.num_processes": "2"})
    pet = {"PET_NNODES": "1", "PET_NPROC_PER_NODE": "2", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "127.0.0.1",
           "PET_MASTER_PORT": str(free_port())}  # fmt: skip
    done = run_python(["-m", "torch.distributed.run", *words], env={**os.environ, **pet})
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stdout
