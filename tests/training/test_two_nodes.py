"""Two machines, as network namespaces joined by a cable, and launch/torchrun-elastic.sh on each."""

import subprocess
from pathlib import Path

import pytest

from tests.training.jobs import PROJECT, Job, draw_images, unbroken
from tests.training.nodes import CABLE, Node, two_nodes, why_not

LAUNCHER = PROJECT / "launch" / "torchrun-elastic.sh"
ELASTIC = {"train.determinism": "elastic"}
PORT = 29400

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=f"two nodes need network namespaces: {why_not()}"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("two_nodes") / "images")


@pytest.fixture(scope="module")
def one_machine(images):
    return unbroken(images)


@pytest.fixture(scope="module")
def one_machine_elastic(images):
    return unbroken(images, **ELASTIC)


@pytest.fixture
def nodes(tmp_path):
    with two_nodes(tmp_path) as both:
        yield both


def console(job: Job, node: Node) -> Path:
    return job.folder.with_name(f"{job.folder.name}-{node.name}.log")


def start(job: Job, node: Node, count: str, **env: str) -> subprocess.Popen:
    """The launcher on one node.

    Args:
        count: the fewest and the most nodes, 1:2.
    """
    ours = {"RDZV_ENDPOINT": f"node1:{PORT}", "NNODES": count, **env}
    return node.start([LAUNCHER, *job.words], output=console(job, node), env={**job.env, **ours})


def test_two_nodes_train_the_run_of_one_machine(nodes, images, one_machine, tmp_path):
    job = Job(tmp_path / "run", images)
    running = [start(job, node, "2:2") for node in nodes]
    assert [process.wait(240) for process in running] == [0, 0], [console(job, node).read_text() for node in nodes]
    assert job.world_sizes() == {10: 2, 20: 2}
    assert job.farthest(one_machine) == 0


def test_nodes_whose_own_name_is_the_loopback_address_are_told_theirs(images, one_machine, tmp_path):
    """As Debian installs them: 127.0.1.1 is the machine's own name."""
    job = Job(tmp_path / "run", images)
    with two_nodes(tmp_path, own_name="127.0.1.1") as nodes:
        running = [
            start(job, node, "2:2", GLOO_SOCKET_IFNAME=CABLE)
            for node in nodes
        ]  # fmt: skip
        assert [process.wait(240) for process in running] == [0, 0], [console(job, node).read_text() for node in nodes]
    assert job.world_sizes() == {10: 2, 20: 2}
    assert job.farthest(one_machine) == 0


def test_f6_f10_a_node_is_lost_and_the_other_goes_on_alone(nodes, images, one_machine, tmp_path):
    job = Job(tmp_path / "run", images, is_held=True)
    first, second = nodes
    survivor, lost = (start(job, node, "1:2", RDZV_CONF="last_call_timeout=10") for node in nodes)
    job.wait_until_held()
    second.kill()
    lost.wait(10)
    job.hold.unlink()
    assert survivor.wait(240) == 0, console(job, first).read_text()
    said = console(job, first).read_text()
    assert "rank 0, step 15: another process of the run is gone" in said
    assert "going on from step 10" in said
    assert job.world_sizes() == {10: 2, 20: 1}
    assert job.farthest(one_machine) <= 1e-6


def test_f3_f6_a_node_is_preempted_and_the_other_goes_on_from_its_last_step(
    nodes, images, one_machine_elastic, tmp_path
):
    """With sums in a fixed tree the bits are the same, whoever is left."""
    job = Job(tmp_path / "run", images, is_held=True, **ELASTIC)
    first, second = nodes
    survivor, preempted = (start(job, node, "1:2", RDZV_CONF="last_call_timeout=10") for node in nodes)
    job.wait_until_held()
    preempted.terminate()
    assert preempted.wait(120) != 0
    assert survivor.wait(240) == 0, console(job, first).read_text()
    assert second.pids() == []
    assert job.world_sizes() == {16: 2, 20: 1}
    assert job.farthest(one_machine_elastic) == 0


def test_f12_a_cut_link_ends_both_sides_and_a_restart_heals(nodes, images, one_machine, tmp_path):
    job = Job(tmp_path / "run", images, is_held=True, **{"train.hang_timeout": "10"})
    for node in nodes:
        node.give_up_early()
    running = [start(job, node, "2:2", MAX_RESTARTS="0") for node in nodes]
    job.wait_until_held()
    nodes[0].cut()
    job.hold.unlink()
    assert all(process.wait(150) != 0 for process in running)
    causes = ("nothing is heard of rank 1 on node2", "the process group's store does not answer")
    for rank, (node, cause) in enumerate(zip(nodes, causes, strict=True)):
        (line,) = (line for line in console(job, node).read_text().splitlines() if line.startswith("fastddpm: error:"))
        assert f"rank {rank} ({node.name}), step 15: no progress for" in line
        assert cause in line
        assert node.pids() == []
    nodes[0].heal()
    again = [start(job, node, "2:2") for node in nodes]
    assert [process.wait(240) for process in again] == [0, 0], [console(job, node).read_text() for node in nodes]
    assert "going on from step 10" in console(job, nodes[0]).read_text()
    assert job.world_sizes() == {10: 2, 20: 2}
    assert job.farthest(one_machine) == 0
