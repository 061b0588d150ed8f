"""Runs in processes forked from one that has imported torch but never used it: a start takes no time."""

import json
import os
import shutil
import signal
from pathlib import Path

from fastddpm import load_config
from fastddpm.training import loop, train
from tests.training.runs import TINY, free_port, metrics

STEPS = 20


def started(folder: Path, settings: dict[str, str], processes: int = 1, kill_at: int | None = None) -> list[int]:
    """The process ids of a run's ranks; with `kill_at`, each kills itself with SIGKILL before that step."""
    port, children = free_port(), []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            work(folder, settings, rank, processes, port, kill_at)
        children.append(child)
    return children


def work(folder: Path, settings: dict[str, str], rank: int, processes: int, port: int, kill_at: int | None) -> None:
    """Train, in a forked process, and end it."""
    code = 1
    try:
        log = os.open(f"{folder}-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if processes > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes))
            os.environ.update(LOCAL_WORLD_SIZE=str(processes), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        original = loop.train_step

        def train_step(run):
            if run.state.step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(run)

        loop.train_step = train_step
        places = {"output_dir": str(folder), "data.cache_dir": str(cache_of(folder))}
        train(load_config(None, {**TINY, **settings, **places}))
        code = 0
    finally:
        os._exit(code)


def cache_of(folder: Path) -> Path:
    """Where a run keeps the images that it has read in."""
    return folder.with_name(f"cache-{folder.name}")


def removed(folder: Path) -> Path:
    """The place of a run, with nothing there."""
    for old in (folder, cache_of(folder)):
        shutil.rmtree(old, ignore_errors=True)
    return folder


def ended(children: list[int]) -> list[int]:
    """The exit codes of processes, once all have ended; a signal's number is negative."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def finish(folder: Path, settings: dict[str, str], processes: int = 1) -> tuple:
    """Train to the end, which must be a good one.  Returns: what it left (see `left_by`)."""
    codes = ended(started(folder, settings, processes))
    if any(codes):
        raise SystemExit(f"a run that nobody killed ended with {codes}; see the logs beside {folder}")
    return left_by(folder)


def left_by(folder: Path) -> tuple:
    """Checksums of the last checkpoint's files, and the rows of the metrics without the clock."""
    manifest = json.loads((folder / "checkpoints" / f"step-{STEPS:08d}" / "manifest.json").read_text())
    assert manifest["files"].keys() >= {"model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"}
    assert not list(folder.rglob(".*.tmp")), "something half-written is left"
    return manifest["files"], metrics(folder)
