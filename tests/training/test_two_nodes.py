"""Two machines, as network namespaces joined by a cable, and launch/torchrun-elastic.sh on each."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.nodes import CABLE, Node, two_nodes, why_not
from tests.training.runs import TINY, final_tensors, free_port

PROJECT = Path(__file__).resolve().parents[2]
ELASTIC = PROJECT / "launch" / "torchrun-elastic.sh"
PORT = 29400

SETTINGS = {
    **TINY, "train.micro_batch_size": "2", "model.norm_type": "group", "model.norm_num_groups": "2",
    "sample.num_images": "2",
}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=f"two nodes need network namespaces: {why_not()}"),
]

PROGRAM = """
import os, sys, time
from pathlib import Path
from fastddpm.cli import main
from fastddpm.training import loop

inner, hold = loop.train_step, Path(os.environ["HOLD"])

def train_step(run):
    if run.state.step == 14:
        Path(f"{hold}-{os.environ['RANK']}").touch()
        while hold.exists():
            time.sleep(0.1)
    return inner(run)

loop.train_step = train_step
main(["train", *sys.argv[1:]])
"""
"""train.py, which waits before step 15 as long as there is a file HOLD, and says so by a file a rank."""


class Job:
    """The same run, started by `torchrun-elastic.sh` on nodes or by torchrun on this machine."""

    def __init__(self, folder: Path, images: Path):
        self.folder, self.hold = folder, folder.with_name(folder.name + ".hold")
        config, self.program = images.parent / "empty.yaml", images.parent / "program.py"
        config.write_text("seed: 0\n")
        self.program.write_text(PROGRAM)
        settings = {
            "config": str(config), "output_dir": str(folder), "data.source": str(images),
            "data.cache_dir": str(images.parent / "cache"), **SETTINGS,
        }  # fmt: skip
        self.words = [word for k, v in settings.items() for word in (f"--{k}", v)]
        self.env = {
            **os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT),
            "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HOLD": str(self.hold), "SCRIPT": str(self.program),
        }  # fmt: skip

    def console(self, node: Node) -> Path:
        return self.folder.with_name(f"{self.folder.name}-{node.name}.log")

    def start(self, node: Node, nodes: str, **env: str) -> subprocess.Popen:
        ours = {
            "RDZV_ENDPOINT": f"node1:{PORT}", "NNODES": nodes, "NPROC_PER_NODE": "1", "GLOO_SOCKET_IFNAME": CABLE,
            **env,
        }  # fmt: skip
        return node.start([ELASTIC, *self.words], output=self.console(node), env={**self.env, **ours})

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


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """24 grayscale 8x8 images."""
    folder = tmp_path_factory.mktemp("two_nodes") / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def one_machine(images):
    """The run of two processes on one machine that nothing happened to."""
    job = Job(images.parent / "one_machine", images)
    job.here(2)
    assert job.world_sizes()[20] == 2
    return final_tensors(job.folder)


@pytest.fixture
def nodes(tmp_path):
    with two_nodes(tmp_path) as both:
        yield both


def farthest(job: Job, other: dict) -> float:
    """The largest difference of any number in the last checkpoint, the weights', the average's and the optimizer's."""
    ours = final_tensors(job.folder)
    assert ours.keys() == other.keys()
    assert len(ours) > 100
    return max(float((tensor - other[name]).abs().max()) for name, tensor in ours.items())


def test_two_nodes_train_the_run_of_one_machine(nodes, images, one_machine, tmp_path):
    job = Job(tmp_path / "run", images)
    running = [job.start(node, "2:2") for node in nodes]
    assert [process.wait(240) for process in running] == [0, 0], [job.console(node).read_text() for node in nodes]
    assert job.world_sizes() == {10: 2, 20: 2}
    assert farthest(job, one_machine) == 0


def test_f6_f10_a_node_is_lost_and_the_other_goes_on_alone(nodes, images, one_machine, tmp_path):
    job = Job(tmp_path / "run", images)
    job.hold.touch()
    first, second = nodes
    survivor, lost = (job.start(node, "1:2", RDZV_CONF="last_call_timeout=10") for node in nodes)
    job.wait_until_held()
    second.kill()
    lost.wait(10)
    job.hold.unlink()
    assert survivor.wait(240) == 0, job.console(first).read_text()
    assert "going on from step 10" in job.console(first).read_text()
    assert job.world_sizes() == {10: 2, 20: 1}
    assert farthest(job, one_machine) <= 1e-6


def test_the_number_of_processes_cannot_be_fixed(tmp_path):
    env = {**os.environ, "RDZV_ENDPOINT": "node1:29400"}
    done = subprocess.run([ELASTIC, "--train.num_processes", "2"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.search(r"train\.num_processes fixes a number that is to vary here", done.stderr)
