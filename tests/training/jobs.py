"""A tiny run whose processes wait in the middle, started by launchers: on this machine, or on others."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tests.training.runs import TINY, final_tensors, free_port

PROJECT = Path(__file__).resolve().parents[2]

SETTINGS = {
    **TINY, "train.micro_batch_size": "2", "model.norm_type": "group", "model.norm_num_groups": "2",
    "sample.num_images": "2",
}  # fmt: skip

PROGRAM = """
import os, sys, time
from pathlib import Path
from fastddpm.cli import main
from fastddpm.training import loop, stopping

step, note, hold = loop.train_step, stopping.Stopping.note, Path(os.environ["HOLD"])

def train_step(run):
    if run.state.step == 14:
        Path(f"{hold}-{os.environ['RANK']}").touch()
        while hold.exists():
            time.sleep(0.1)
    return step(run)

def note_and_go_on(self, *signal):
    hold.unlink(missing_ok=True)
    note(self, *signal)

loop.train_step, stopping.Stopping.note = train_step, note_and_go_on
main(["train", *sys.argv[1:]])
"""
"""train.py, but before step 15 each rank leaves a file, and waits as long as there is one named HOLD: until somebody
removes it, or a signal comes."""


class Job:
    """The run: its folder, its arguments and its environment."""

    def __init__(self, folder: Path, images: Path, *, is_held: bool = False, **settings: str):
        self.folder, self.hold = folder, folder.with_name(folder.name + ".hold")
        if is_held:
            self.hold.touch()
        config, self.program = images.parent / "empty.yaml", images.parent / "program.py"
        config.write_text("seed: 0\n")
        self.program.write_text(PROGRAM)
        merged = {
            "config": str(config), "out": str(folder), "data.source": str(images),
            "data.cache_dir": str(images.parent / "cache"), **SETTINGS, **settings,
        }  # fmt: skip
        self.words = [word for k, v in merged.items() for word in (f"--{k}", v)]
        self.env = {
            **os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT),
            "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HOLD": str(self.hold), "SCRIPT": str(self.program),
            "NPROC_PER_NODE": "1",
        }  # fmt: skip

    def here(self, processes: int) -> None:
        """Train to the end on this machine."""
        launcher = ["torchrun", "--nproc-per-node", str(processes), "--master-port", str(free_port()), self.program]
        done = subprocess.run(
            [*launcher, *self.words], env=self.env, capture_output=True, text=True, check=False, timeout=240
        )
        assert done.returncode == 0, done.stderr

    def wait_until_held(self) -> None:
        """Both ranks have done 14 steps, and the newest checkpoint is of the tenth."""
        reached = [self.hold.with_name(f"{self.hold.name}-{rank}") for rank in (0, 1)]
        end = time.monotonic() + 120
        while not all(path.exists() for path in reached):
            assert time.monotonic() < end, "it took too long"
            time.sleep(0.2)

    def world_sizes(self) -> dict[int, int]:
        """How many processes wrote each checkpoint, by its step."""
        manifests = sorted((self.folder / "checkpoints").glob("step-*/manifest.json"))
        return {int(path.parent.name[5:]): json.loads(path.read_text())["world_size"] for path in manifests}

    def farthest(self, other: dict) -> float:
        """The largest difference of any number in the last checkpoint from another run's: the weights', the average's
        and the optimizer's."""
        ours = final_tensors(self.folder)
        assert ours.keys() == other.keys()
        assert len(ours) > 100
        return max(float((tensor - other[name]).abs().max()) for name, tensor in ours.items())


def draw_images(folder: Path) -> Path:
    """24 grayscale 8x8 images.  Returns: their folder."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    return folder


def unbroken(images: Path, **settings: str) -> dict:
    """The tensors of the run of two processes on one machine that nothing happened to."""
    job = Job(images.parent / "-".join(["unbroken", *settings.values()]), images, **settings)
    job.here(2)
    assert job.world_sizes()[20] == 2
    return final_tensors(job.folder)
