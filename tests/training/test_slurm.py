"""launch/slurm.sbatch, run by Slurm itself on two nodes."""

import pytest

from tests.training import cluster, nodes
from tests.training.jobs import PROJECT, Job, draw_images, unbroken

WHY_NOT = nodes.why_not() or cluster.why_not()

pytestmark = [pytest.mark.slow, pytest.mark.skipif(WHY_NOT is not None, reason=f"Slurm cannot be run: {WHY_NOT}")]


@pytest.fixture
def slurm(tmp_path):
    with nodes.two_nodes(tmp_path) as both, cluster.slurm(both) as running:
        yield running


def test_f3_the_job_saves_ahead_of_its_limit_and_is_queued_again(slurm, tmp_path):
    images = draw_images(tmp_path / "images")
    other = unbroken(images)
    job, log = Job(tmp_path / "run", images, is_held=True), tmp_path / "job.log"
    number = slurm.ask(
        "sbatch", "--parsable", "--time=2", "--signal=B:USR1@50", f"--output={log}", f"--chdir={PROJECT}",
        PROJECT / "launch" / "slurm.sbatch", *job.words, **job.env,
    )  # fmt: skip
    cluster.wait_until(
        lambda: "JobState=COMPLETED " in slurm.ask("scontrol", "show", "job", number), 400, lambda: log.read_text()
    )  # fmt: skip
    said = log.read_text()
    assert "stopped by SIGUSR1 after step 16, which is saved" in said
    assert f"job {number}, start 0: ended ahead of its time limit, and queued again" in said
    assert "going on from step 16" in said
    assert job.world_sizes() == {16: 2, 20: 2}
    assert job.farthest(other) == 0
