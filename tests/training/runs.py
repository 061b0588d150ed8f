"""Tiny real runs, in processes of their own or in this one."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import fastddpm
from fastddpm.training import loop

TINY = {
    "model.block_out_channels": "[4, 8]", "model.time_embedding_dim": "8", "scheduler.num_train_timesteps": "20",
    "scheduler.beta_end": "0.5", "train.batch_size": "8", "train.num_images_seen": "160", "train.log_every": "4",
    "train.checkpoint_every": "10", "train.mixed_precision": "no", "train.num_threads": "1",
    "train.lr_schedule": "cosine", "train.lr_warmup_steps": "5", "train.horizontal_flip": "true",
    "train.timestep_sampling": "stratified", "data.num_held_out": "4", "sample.num_images": "4",
    "sample.num_inference_steps": "3",
}  # fmt: skip


def start(
    folder: Path, images: Path, *, processes: int = 1, kill_at: int | None = None, before: str = "", **settings: str
):
    """Train in the foreground; with `kill_at`, every process kills itself with SIGKILL before that step; `before` is
    Python that each process runs first.

    Returns: the finished process, with its output.
    """
    merged = {**TINY, "data.source": str(images), "data.cache_dir": str(images.parent / "cache"), **settings}
    words = ["--output_dir", str(folder), *(word for k, v in merged.items() for word in (f"--{k}", v))]
    code = (
        "import os, signal, sys\n"
        "from fastddpm.config import load_config\n"
        "from fastddpm.cli import parse_train_arguments\n"
        "from fastddpm.training import loop, train\n"
        "original, kill_at = loop.train_step, int(sys.argv.pop(1))\n"
        "def train_step(run):\n"
        "    if run.state.step == kill_at: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return original(run)\n"
        "loop.train_step = train_step\n"
        "_, overrides, _ = parse_train_arguments(sys.argv[1:])\n"
        "train(load_config(None, overrides))\n"
    )
    script = images.parent / "start.py"
    script.write_text(before + code)
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
    return subprocess.run(
        [*launcher, str(script), str(-1 if kill_at is None else kill_at), *words],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


def train_here(folder: Path, images: Path, *, fail_at: int | None = None, **settings: str) -> Path:
    """Train in this process; with `fail_at`, a RuntimeError comes before that step. Returns: the run folder."""
    places = {"output_dir": str(folder), "data.source": str(images), "data.cache_dir": str(images.parent / "cache")}
    original = loop.train_step

    def train_step(run):
        if run.state.step == fail_at:
            raise RuntimeError("in the middle")
        return original(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", train_step)
        return fastddpm.train(fastddpm.load_config(None, {**TINY, **places, **settings}))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def final_tensors(folder: Path, step: int = 20) -> dict:
    """Every tensor of a checkpoint, by file and name."""
    path = folder / "checkpoints" / f"step-{step:08d}"
    return {
        f"{name}/{key}": tensor
        for name in ("model", "ema", "optimizer")
        for key, tensor in load_file(path / f"{name}.safetensors").items()
    }


def metrics(folder: Path) -> list[dict]:
    """Rows of metrics.jsonl without what the clock decides."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    of_the_clock = ("images_per_second", "data_wait_share", "peak_share")
    return [{k: v for k, v in row.items() if k not in of_the_clock} for row in rows]
