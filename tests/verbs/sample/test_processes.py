"""`fastddpm sample` on several gloo processes: the bytes of one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastddpm import cli
from fastddpm.process import counted
from tests.forked import free_port, run_ranks

OUTS = ("folder", "x.npz", "x.parquet", "x.png")
WORDS = [
    "--num_images", "18", "--micro_batch_size", "4", "--num_inference_steps", "5", "--num_threads", "1", "--seed", "3",
]  # fmt: skip
SCRIPT = """
import os, signal, sys
from fastddpm import cli
from fastddpm.verbs.sample import outputs

model, where, kill_at, *words = sys.argv[1:]
put = outputs.File.put

def killed(self, index, images):
    if index == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, index, images)

outputs.File.put = killed
for name in os.environ["OUTS"].split():
    cli.main([os.environ["VERB"], model, "--out", f"{where}/{name}", *words])
"""


def launch(model: Path, where: Path, processes: int, *, outs=OUTS, kill_at: int = -1, verb="sample", words=WORDS):
    """Sample each of `outs` in one start of so many processes."""
    script = where.parent / "script.py"
    script.write_text(SCRIPT)
    words = [script, model, where, str(kill_at), *words, "--num_processes", str(processes)]
    done = run_ranks(words, processes, env={"OUTS": " ".join(outs), "VERB": verb})
    return max(
        done, key=lambda each: (each.returncode != 0, len(each.stdout))
    )  # one that failed, else the one that tells


def every_byte(where: Path) -> dict[str, bytes]:
    return {str(p.relative_to(where)): p.read_bytes() for p in sorted(where.rglob("*")) if p.is_file()}


def check_world(done, processes: int, num_outs: int) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{counted(processes, 'process')} of 1 thread") == num_outs


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_write_the_bytes_of_one(model, tmp_path, draw, processes):
    for name in OUTS:
        draw(model, tmp_path / "one" / name, *WORDS)
    check_world(launch(model, tmp_path / "several", processes), processes, len(OUTS))
    one, several = every_byte(tmp_path / "one"), every_byte(tmp_path / "several")
    assert len(one) == 3 + 18 + 2
    assert list(several) == list(one)
    for name in one:
        assert several[name] == one[name], name


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["vary", "cutmix"])
def test_images_from_images_do_not_depend_on_the_number_of_processes(model, tmp_path, verb):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "in.npy", rng.integers(0, 256, (3, 8, 8), dtype=np.uint8))
    words = [str(tmp_path / "in.npy"), "--start_timesteps", "5", "10", "--micro_batch_size", "4", "--num_threads", "1"]
    outs = ["folder", "x.parquet", "x.png"]
    for name in outs:
        cli.main([verb, str(model), "--out", str(tmp_path / "one" / name), *words])
    check_world(launch(model, tmp_path / "two", 2, outs=outs, verb=verb, words=words), 2, len(outs))
    one, two = every_byte(tmp_path / "one"), every_byte(tmp_path / "two")
    assert len(one) == 3 * 2 * 8 + 2 + 2
    assert one == two


@pytest.mark.slow
def test_killed_processes_are_gone_on_with_by_another_number(model, tmp_path, draw):
    killed = launch(model, tmp_path / "out", 2, outs=["x.npz"], kill_at=3)  # the second rank's second
    assert killed.returncode != 0
    assert not (tmp_path / "out" / "x.npz").exists()
    check_world(launch(model, tmp_path / "out", 3, outs=["x.npz"]), 3, 1)
    draw(model, tmp_path / "one" / "x.npz", *WORDS)
    assert every_byte(tmp_path / "out") == every_byte(tmp_path / "one")


@pytest.mark.slow
def test_accelerate_launch_samples_as_a_module(model, tmp_path, draw):
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--main_process_port", str(free_port()), "-m", "fastddpm", "sample", str(model), "--out",
        str(tmp_path / "two" / "x.parquet"), *WORDS, "--num_processes", "2",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    check_world(done, 2, 1)
    draw(model, tmp_path / "one" / "x.parquet", *WORDS)
    assert every_byte(tmp_path / "two") == every_byte(tmp_path / "one")
