"""Two machines on one: network namespaces joined by a cable, each with a name, an address and processes of its own.

They share the disk and the clock, and nothing of the network. `why_not()` says what lacks for it, such as root.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CABLE = "cable"
_PREFIX = "fastddpm"


@cache
def why_not() -> str | None:
    """Why there can be no two nodes here; None if there can."""
    lacking = [name for name in ("ip", "unshare", "mount", "hostname") if shutil.which(name) is None]
    if lacking:
        return f"not found: {', '.join(lacking)}"
    name = f"{_PREFIX}-{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"ip netns add: {made.stderr.strip()}"
    _ip("netns", "del", name)
    return None


@dataclass(frozen=True)
class Node:
    """One of the two machines."""

    name: str
    address: str
    namespace: str
    hosts: Path

    def start(self, command: Sequence[str | Path], *, output: Path, env: dict[str, str]) -> subprocess.Popen:
        """Start a command on this node, with its output, both kinds, appended to a file."""
        inside = (
            f"hostname {self.name} && mount --bind {shlex.quote(str(self.hosts))} /etc/hosts && exec {_shell(command)}"
        )
        words = ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "--mount", "sh", "-c", inside]
        with output.open("a") as file:
            return subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=env, start_new_session=True
            )

    def pids(self) -> list[int]:
        return [int(word) for word in _ip("netns", "pids", self.namespace).split()]

    def kill(self) -> None:
        """SIGKILL to everything on this node, until nothing is left."""
        end = time.monotonic() + 20
        while pids := self.pids():
            assert time.monotonic() < end, f"{self.name} still runs {pids}"
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def cut(self) -> None:
        """Take the cable out."""
        _ip("-n", self.namespace, "link", "set", CABLE, "down")

    def heal(self) -> None:
        """Put the cable in."""
        _ip("-n", self.namespace, "link", "set", CABLE, "up")

    def give_up_early(self) -> None:
        """A connection whose other end does not answer is broken after some 25 seconds; by default, 15 minutes."""
        _ip("netns", "exec", self.namespace, "sh", "-c", "echo 6 > /proc/sys/net/ipv4/tcp_retries2")


@contextlib.contextmanager
def two_nodes(folder: Path, own_name: str | None = None) -> Iterator[tuple[Node, Node]]:
    """node1 and node2, which resolve each other's names. At the end all that runs there is killed, and they are gone.

    Args:
        folder: for their /etc/hosts.
        own_name: what a node's own name resolves to, if not to the address that the other one sees.
    """
    _remove_leftovers()
    addresses = {f"node{i}": f"10.77.0.{i}" for i in (1, 2)}
    nodes = [
        Node(name, address, f"{_PREFIX}-{os.getpid()}-{name}", folder / f"hosts-{name}")
        for name, address in addresses.items()
    ]
    for node in nodes:
        seen = addresses if own_name is None else {**addresses, node.name: own_name}
        node.hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, ip in seen.items()))
    with contextlib.ExitStack() as leaving:
        for node in nodes:
            leaving.callback(_remove, node)
            _ip("netns", "add", node.namespace)
        first, second = nodes
        _ip("link", "add", CABLE, "netns", first.namespace, "type", "veth",
            "peer", "name", CABLE, "netns", second.namespace)  # fmt: skip
        for node in nodes:
            _ip("-n", node.namespace, "addr", "add", f"{node.address}/24", "dev", CABLE)
            _ip("-n", node.namespace, "link", "set", "lo", "up")
            node.heal()
        yield first, second


def _remove_leftovers() -> None:
    """Of tests that were killed."""
    for line in _ip("netns", "list").splitlines():
        found = re.match(rf"({_PREFIX}-(\d+)-\S+)", line)
        if found and not Path(f"/proc/{found[2]}").exists():
            _remove(Node(found[1], "", found[1], Path()))


def _remove(node: Node) -> None:
    with contextlib.suppress(subprocess.CalledProcessError):  # it was never made
        node.kill()
        _ip("netns", "del", node.namespace)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


def _shell(command: Sequence[str | Path]) -> str:
    return shlex.join(str(word) for word in command)
