"""Tiny real runs, in processes of their own or in this one."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import fastddpm
from fastddpm.training import loop
from tests.forked import free_port, run_python, run_ranks

TINY = {
    "model.block_out_channels": "[4, 8]", "model.time_embedding_dim": "8", "scheduler.num_train_timesteps": "20",
    "scheduler.beta_end": "0.5", "train.batch_size": "8", "train.num_images_seen": "160", "train.log_every": "4",
    "train.checkpoint_every": "10", "train.mixed_precision": "no", "train.num_threads": "1",
    "train.lr_schedule": "cosine", "train.lr_warmup_steps": "5", "train.horizontal_flip": "true",
    "train.timestep_sampling": "stratified", "data.num_held_out": "4", "sample.num_images": "4",
    "sample.num_inference_steps": "3",
}  # fmt: skip


def start(
    folder: Path, images: Path, *, processes: int = 1, kill_at: int | None = None, before: str = "",
    options: Sequence[str] = (), **settings: str,
):  # fmt: skip
    """Train in the foreground; with `kill_at`, every process kills itself with SIGKILL before that step; `before` is
    Python that each process runs first, and `options` are torchrun's.

    Returns: the finished process, with its output.
    """
    launcher = []
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        launcher += ["--master_port", str(free_port()), *options]
    return run_python([*launcher, *words_of(folder, images, kill_at, before, settings)])


def start_each(folder: Path, images: Path, *, processes: int, before: str = "", **settings: str):
    """Train on several processes without a launcher, which would end the others when one fails.

    Returns: the finished processes, by rank.
    """
    return run_ranks(words_of(folder, images, None, before, settings), processes)


def once_in_step(step: int, what: str, *, flag: Path, rank: int | None = None) -> str:
    """Python for `before`: does something at the beginning of a step (of so many done), on one rank or on all, and not
    again when the run goes on.

    Args:
        what: a line of Python; os, signal, subprocess and time are there.
        flag: a file that says that it was done.
    """
    return (
        "import os, signal, subprocess, time\n"
        "from fastddpm.training import loop\n"
        "inner = loop.train_step\n"
        "def train_step(run):\n"
        f"    mine = {rank} in (None, int(os.environ.get('RANK', '0')))\n"
        f"    if run.state.step == {step} and mine and not os.path.exists({str(flag)!r}):\n"
        f"        open({str(flag)!r}, 'w').close()\n"
        f"        {what}\n"
        "    return inner(run)\n"
        "loop.train_step = train_step\n"
    )


def words_of(folder: Path, images: Path, kill_at: int | None, before: str, settings: dict) -> list[str]:
    """The script of a run and its arguments, for Python or a launcher."""
    merged = {**TINY, "data.source": str(images), "data.cache_dir": str(images.parent / "cache"), **settings}
    words = ["--out", str(folder), *(word for k, v in merged.items() for word in (f"--{k}", v))]
    code = (
        "import os, signal, sys\n"
        "from fastddpm.cli import main\n"
        "from fastddpm.training import loop\n"
        "original, kill_at = loop.train_step, int(sys.argv.pop(1))\n"
        "def train_step(run):\n"
        "    if run.state.step == kill_at: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return original(run)\n"
        "loop.train_step = train_step\n"
        "main(['train', *sys.argv[1:]])\n"
    )
    script, config = images.parent / "start.py", images.parent / "start.yaml"
    script.write_text(before + code)
    config.write_text("seed: 0\n")
    return [str(script), str(-1 if kill_at is None else kill_at), "--config", str(config), *words]


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


def some_images(folder: Path) -> Path:
    """24 grayscale 8x8 images, in a new folder."""
    folder.mkdir(parents=True)
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


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
