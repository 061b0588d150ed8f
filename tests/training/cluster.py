"""Slurm itself, on the two nodes of `nodes.py`: its controller and one of its daemons on each.

As small as it gets: no accounting, no cgroups, all of it as root. Debian and Ubuntu have it as slurm-wlm and munge.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.training.nodes import Node

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")

_CONFIG = """
ClusterName=two
SlurmctldHost=node1
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SchedulerParameters=batch_sched_delay=1,sched_interval=5
NodeName=node[1-2] CPUs=1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why Slurm cannot be started here; None if it can."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"not found: {', '.join(lacking)} (Debian: slurm-wlm, munge)" if lacking else None


@dataclass(frozen=True)
class Cluster:
    """Slurm, running on two nodes."""

    folder: Path
    node: Node

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def ask(self, *words: str | Path, **env: str) -> str:
        """Run one of Slurm's commands on the first node.  Returns: what it printed."""
        output = self.folder / f"{words[0]}.out"
        output.unlink(missing_ok=True)
        code = self.node.start(words, output=output, env={**self.env, **env}).wait(30)
        said = output.read_text().strip()
        assert code == 0, f"{words[0]}: {said}"
        return said


@contextlib.contextmanager
def slurm(nodes: tuple[Node, Node]) -> Iterator[Cluster]:
    """Slurm on the two nodes, with both ready for jobs; it ends with the nodes, at the latest."""
    with tempfile.TemporaryDirectory(prefix="fastddpm-slurm-") as name:  # a short path: sockets lie in it
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "state").mkdir()
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o400)
        (folder / "slurm.conf").write_text(_CONFIG.format(folder=folder))
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # named, it is not looked for
        first, second = nodes
        cluster = Cluster(folder, first)
        munge = [f"--{what}-file={folder / what}" for what in ("key", "pid", "log", "seed")]
        daemons = [
            first.start(["munged", "--foreground", f"--socket={folder}/munge", *munge], output=folder / "munged.out",
                        env=cluster.env),
            first.start(["slurmctld", "-D"], output=folder / "slurmctld.out", env=cluster.env),
            *(node.start(["slurmd", "-D", "-N", node.name], output=folder / f"slurmd-{node.name}.out", env=cluster.env)
              for node in (first, second)),
        ]  # fmt: skip
        try:
            wait_until(lambda: _idle(cluster) == 2, 60, lambda: _said(folder))
            yield cluster
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
            for daemon in daemons:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    daemon.wait(10)
            for node in nodes:
                node.kill()


def wait_until(is_so: Callable[[], bool], seconds: float, said: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, said()
        time.sleep(0.5)


def _idle(cluster: Cluster) -> int:
    try:
        return cluster.ask("scontrol", "show", "nodes", "--oneliner").count("State=IDLE ")
    except AssertionError:  # it does not answer yet
        return 0


def _said(folder: Path) -> str:
    return "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in sorted(folder.glob("*.out")))
