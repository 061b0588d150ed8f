"""kill -9 of all ranks at random moments, and whether the run ends as one that was not killed.

    python -m tests.training.kills FOLDER --count 100 --processes 1

Processes are forked from this one, which has imported torch but never used it: a start takes a moment, not ten seconds.
The moments are spread over the whole of a run: reading images in, training, saving, drawing, the end.
"""

import argparse
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

from fastddpm import load_config
from fastddpm.training import train
from tests.training.runs import TINY, free_port, metrics, some_images

STEPS = 20


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("folder", type=Path)
    asked.add_argument("--count", type=int, default=100)
    asked.add_argument("--processes", type=int, default=1)
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    images = some_images(given.folder / "images")
    settings = {**TINY, "data.source": str(images), "train.checkpoint_every": "3", "train.determinism": "exact"}
    settings["watch.preview_every_images"] = "40"
    began = time.monotonic()
    straight = given.folder / "straight"
    wait_for(started(straight, settings, given.processes))
    took, expected, moments = time.monotonic() - began, left_by(straight), random.Random(given.seed)
    came_from: Counter[str] = Counter()
    for _ in range(given.count):
        folder = given.folder / "killed"
        for old in (folder, cache_of(folder)):
            shutil.rmtree(old, ignore_errors=True)
        children = started(folder, settings, given.processes)
        time.sleep(moments.uniform(0, took))
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
        came_from[state_of(folder)] += 1
        wait_for(started(folder, settings, given.processes))
        if left_by(folder) != expected:
            raise SystemExit(f"after {sum(came_from.values())} kills a run differs: compare {folder} and {straight}")
        stray = [*(folder / "checkpoints").glob("*.tmp-*"), *folder.glob(".*.tmp*")]
        if stray:
            raise SystemExit(f"left behind: {stray}")
    print(json.dumps({"kills": given.count, "equal": given.count, "killed at": dict(came_from)}))


def started(folder: Path, settings: dict[str, str], processes: int) -> list[int]:
    """The process ids of a run's ranks."""
    port, children = free_port(), []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            work(folder, settings, rank, processes, port)
        children.append(child)
    return children


def work(folder: Path, settings: dict[str, str], rank: int, processes: int, port: int) -> None:
    """Train, in a forked process, and end it."""
    code = 1
    try:
        log = os.open(f"{folder}-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if processes > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes))
            os.environ.update(LOCAL_WORLD_SIZE=str(processes), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        places = {"output_dir": str(folder), "data.cache_dir": str(cache_of(folder))}
        train(load_config(None, {**settings, **places}))
        code = 0
    finally:
        os._exit(code)


def cache_of(folder: Path) -> Path:
    """Where a run keeps the images that it has read in."""
    return folder.with_name(f"cache-{folder.name}")


def wait_for(children: list[int]) -> None:
    """Until all have ended well."""
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        raise SystemExit(f"a run that nobody killed ended with {codes}; see the logs beside its folder")


def left_by(folder: Path) -> tuple:
    """Checksums of the last checkpoint's files, and the rows of the metrics without the clock."""
    manifest = json.loads((folder / "checkpoints" / f"step-{STEPS:08d}" / "manifest.json").read_text())
    assert manifest["files"].keys() >= {"model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"}
    return manifest["files"], metrics(folder)


def state_of(folder: Path) -> str:
    """How far a run is."""
    if (folder / "model_index.json").exists():
        return "the last pictures"
    steps = sorted(path.name for path in (folder / "checkpoints").glob("step-????????"))
    if steps:
        return f"step {int(steps[-1].removeprefix('step-'))}"
    return "no checkpoint"


if __name__ == "__main__":
    main()
