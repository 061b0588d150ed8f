"""Ranks that hang, and ranks that are gone: found in bounded time, named in one line, and the program ended, so that a
launcher can start it again."""

import contextlib
import faulthandler
import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from fastddpm.training.split import Split

HANG_CODE = 75
"""exit code of a rank that ends because the run hangs, or another is gone: try again"""
_STEP = "a step"


class LostProcess(ConnectionError):
    """A rank of the run is gone, or its machine cannot be reached."""

    exit_code = HANG_CODE


class Report(NamedTuple):
    """Last report of a rank about itself."""

    beat: int
    """grows as long as the process runs"""
    step: int
    """steps done"""
    doing: str
    host: str


class Watchdog:
    """Each rank says through the process group's store that it lives and what it does. One that has made no step for
    `timeout` asks what the others said: if some are silent (stopped, or their machine cut off), or all are in a step
    and get no further, it names them, prints every thread's stack, and ends its process with `HANG_CODE`. Nothing is
    asked as long as steps are made, and nothing is read from a device.

    Args:
        store: of the process group; each thread uses a connection of its own.
        timeout: seconds.
        end: what ends the process, given its exit code.
    """

    def __init__(
        self, store: Any, rank: int, world_size: int, step: int, timeout: float, end: Callable[[int], Any] = os._exit
    ):
        self._store, self._rank, self._world_size, self._timeout, self._end = store, rank, world_size, timeout, end
        self._interval = min(5.0, timeout / 4)
        self._beat, self._step, self._doing = 0, step, _STEP
        self._since = time.monotonic()
        self._over = threading.Event()

    @contextlib.contextmanager
    def watching(self) -> Iterator["Watchdog"]:
        """Until the block ends."""
        threads = [threading.Thread(target=work, daemon=True) for work in (self._say, self._look)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()

    def stepped(self, step: int) -> None:
        """So many steps are done."""
        self._step, self._since = step, time.monotonic()

    @contextlib.contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """Something that may take longer than a step, while other ranks wait."""
        before, self._doing = self._doing, doing
        try:
            yield
        finally:
            self._doing, self._since = before, time.monotonic()

    def _say(self) -> None:
        with contextlib.suppress(Exception):  # a store that is gone: `_look` says so
            store = self._store.clone()
            while not self._over.is_set():
                self._beat += 1
                report = Report(self._beat, self._step, self._doing, socket.gethostname())
                store.set(f"alive/{self._rank}", json.dumps(report))
                self._over.wait(self._interval)

    def _look(self) -> None:
        while not self._over.wait(self._interval):
            stalled = time.monotonic() - self._since
            if stalled < self._timeout:
                continue
            step = self._step
            first = self._reports()
            self._over.wait(2 * self._interval)
            found = cause(first, self._reports(), self._rank, self._world_size)
            if found is not None and self._step == step and not self._over.is_set():
                self._give_up(found, stalled)
                return

    def _give_up(self, found: str, stalled: float) -> None:
        faulthandler.dump_traceback(all_threads=True)
        print(
            f"fastddpm: error: rank {self._rank} ({socket.gethostname()}), step {self._step + 1}: no progress for "
            f"{stalled:.0f} s: {found}; the run goes on from its last checkpoint when it is started again "
            f"(train.hang_timeout is {self._timeout:g})",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        self._end(HANG_CODE)

    def _reports(self) -> dict[int, Report] | None:
        """Last reports of all ranks; None: the store does not answer."""
        found: dict[int, Report] = {}

        def read() -> None:
            store, names = self._store.clone(), [f"alive/{rank}" for rank in range(self._world_size)]
            for rank, name in enumerate(names):
                if store.check([name]):
                    found[rank] = Report(*json.loads(store.get(name)))
            done.set()

        done = threading.Event()
        threading.Thread(target=read, daemon=True).start()  # a cut connection answers to no time-out
        return dict(found) if done.wait(self._interval * 2) else None


def cause(first: dict[int, Report] | None, second: dict[int, Report] | None, rank: int, world_size: int) -> str | None:
    """Why a rank gets no further, by what all had said at two moments, several beats apart (None: nobody answered).

    Returns: None: it may still.
    """
    if first is None or second is None:
        return "the process group's store does not answer: the machine that started first is gone or cut off"
    silent = [f"rank {one} (not heard of yet)" for one in range(world_size) if one not in second] + [
        f"rank {one} on {report.host} (last heard of in step {report.step + 1})"
        for one, report in second.items()
        if one != rank and one in first and first[one].beat == report.beat
    ]
    if silent:
        named = ", ".join(silent)
        return f"nothing is heard of {named}: stopped, or its machine is gone or cut off"
    if any(report.doing != _STEP for report in second.values()):
        return None
    if any(report.step != first[one].step for one, report in second.items() if one in first):
        return None
    least = min(report.step for report in second.values())
    behind = sorted(one for one, report in second.items() if report.step == least)
    if len(behind) == len(second):
        return "all ranks are in the same step; the stacks above say where"
    named = ", ".join(f"rank {one}" for one in behind)
    return f"behind the others: {named}; the stacks say where"


def watched(split: Split, store: Any, step: int, timeout: float | None) -> contextlib.AbstractContextManager[Watchdog]:
    """A watchdog, after `step` steps, that looks where there are several processes (and so a store) and a time-out."""
    if store is None or timeout is None:
        return contextlib.nullcontext(Watchdog(None, split.rank, split.world_size, step, math.inf))
    return Watchdog(store, split.rank, split.world_size, step, timeout).watching()


@contextlib.contextmanager
def loss_explained(where: Callable[[], str]) -> Iterator[None]:
    """Say in a line that another rank is gone, and to which one and in which step.

    Raises: LostProcess: instead of what gloo and NCCL raise. ValueError: the port to meet at is taken.
    """
    try:
        yield
    except RuntimeError as error:
        if "EADDRINUSE" in str(error):
            raise ValueError(
                f"port {os.environ.get('MASTER_PORT')}, at which the processes are to meet, is taken by another "
                f"program on this machine; give the launcher another one (accelerate launch --main_process_port, "
                f"torchrun --master_port), or start with torchrun --standalone"
            ) from error
        if not is_of_communication(error):
            raise
        first = str(error).strip().splitlines()[0][:200]
        raise LostProcess(
            f"{where()}: another process of the run is gone ({first}); its own output says why; started again, the run "
            f"goes on from its last checkpoint"
        ) from error


def is_of_communication(error: BaseException) -> bool:
    """True for a failed exchange between ranks."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error) or "Connection " in str(error)
