"""kill -9 of all ranks at random moments, and whether the run ends as one that was not killed.

    python -m tests.training.kills FOLDER --count 100 --processes 1

The moments are spread over the whole of a run: reading images in, training, saving, drawing, the end.
"""

import argparse
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

from tests.training.forked import ended, finish, removed, started
from tests.training.runs import some_images


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("folder", type=Path)
    asked.add_argument("--count", type=int, default=100)
    asked.add_argument("--processes", type=int, default=1)
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    settings = {
        "data.source": str(some_images(given.folder / "images")), "train.checkpoint_every": "3",
        "train.determinism": "exact", "watch.preview_every_images": "40",
    }  # fmt: skip
    began = time.monotonic()
    expected = finish(given.folder / "straight", settings, given.processes)
    took, moments = time.monotonic() - began, random.Random(given.seed)
    came_from: Counter[str] = Counter()
    while came_from.total() < given.count:
        folder = removed(given.folder / "killed")
        children = started(folder, settings, given.processes)
        time.sleep(moments.uniform(0, took))
        for child in children:
            os.kill(child, signal.SIGKILL)
        if -signal.SIGKILL not in ended(children):
            continue  # it was through before
        came_from[state_of(folder)] += 1
        if finish(folder, settings, given.processes) != expected:
            straight = given.folder / "straight"
            raise SystemExit(f"after kill {came_from.total()} a run differs: compare {folder} and {straight}")
    print(json.dumps({"kills": given.count, "equal": given.count, "killed at": dict(sorted(came_from.items()))}))


def state_of(folder: Path) -> str:
    """How far a run is."""
    if (folder / "model_index.json").exists():
        return "the last pictures"
    steps = sorted(path.name for path in (folder / "checkpoints").glob("step-????????"))
    return f"checkpoint {int(steps[-1].removeprefix('step-'))}" if steps else "no checkpoint yet"


if __name__ == "__main__":
    main()
