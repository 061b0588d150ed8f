"""`fastddpm sample` on several gloo processes: the bytes of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.runs import free_port

OUTS = ("folder", "x.npz", "x.parquet", "x.png")
WORDS = [
    "--num_images", "18", "--micro_batch_size", "4", "--num_inference_steps", "5", "--num_threads", "1", "--seed", "3",
]  # fmt: skip
SCRIPT = """
import os, signal, sys
from fastddpm import cli
from fastddpm.sampling import outputs

model, where, kill_at, *words = sys.argv[1:]
put = outputs.File.put

def killed(self, index, images):
    if index == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, index, images)

outputs.File.put = killed
for name in os.environ["OUTS"].split():
    cli.main(["sample", model, "--out", f"{where}/{name}", *words])
"""


def launch(model: Path, where: Path, processes: int, *, outs=OUTS, kill_at: int = -1):
    """Sample each of `outs` in one start of so many processes."""
    script = where.parent / "script.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable]
    if processes > 1:
        launcher += [
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            str(processes),
            "--master_port",
            str(free_port()),
        ]
    words = [*WORDS, "--num_processes", str(processes)]
    return subprocess.run(
        [*launcher, str(script), str(model), str(where), str(kill_at), *words], capture_output=True, text=True,
        check=False, timeout=240, env={**os.environ, "ACCELERATE_USE_CPU": "true", "OUTS": " ".join(outs)},
    )  # fmt: skip


def every_byte(where: Path) -> dict[str, bytes]:
    return {str(p.relative_to(where)): p.read_bytes() for p in sorted(where.rglob("*")) if p.is_file()}


def check_world(done, processes: int, num_outs: int) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{processes} process(es) of 1 thread(s)") == num_outs


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
