"""Being asked to stop: SIGTERM, SIGINT and SIGUSR1 end a run after the step under way, with a checkpoint of it.

The exit code is 128 and the signal's number, as shells have it: 143, 130, 138. A launcher may send a signal of its own
when the terminal has sent one already, so only a second Ctrl-C, a moment after the first signal, ends it at once.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
_KEY = "stop_after"
_MOMENT = 1.0
"""seconds: faster than a person presses Ctrl-C again, slower than a launcher hands a signal on"""


class Stopped(SystemExit):
    """The run was asked to stop, and has; `code` is the exit code."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


class Stopping:
    """State of a request to stop; every rank has one.

    While `deferred`, a signal is only noted: the loop asks after each step. Else it ends the program where it is, which
    loses nothing: what is read in and what is saved are whole at any time.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._asked_at = 0.0
        self._is_deferred = False
        self.store: Any = None
        """store of the process group, through which several ranks agree on a step; None: there is one"""

    def note(self, number: int, _: FrameType | None = None) -> None:
        """A signal has come.  Raises: Stopped: nothing is under way that must be finished, or the user insists."""
        now = time.monotonic()
        insists = self._asked is not None and number == signal.SIGINT and now - self._asked_at > _MOMENT
        if not self._is_deferred or insists:
            raise Stopped(number)
        if self._asked is None:
            self._asked, self._asked_at = number, now

    @contextmanager
    def deferred(self, is_deferred: bool = True) -> Iterator[None]:
        """Note signals only, as during a step or a save; or, if not `is_deferred`, end the program where it is."""
        before, self._is_deferred = self._is_deferred, is_deferred
        try:
            yield
        finally:
            self._is_deferred = before

    def is_due(self, step: int) -> bool:
        """True if the run stops after this step; the same on every rank, which all have to ask after each step.

        The rank that is asked names the next step but one: no rank can be through with that one before it, and so all
        have seen it by then. It is asked of the store of the process group, not of a device.
        """
        if self.store is None:
            return self._asked is not None
        if self._asked is not None:
            self.store.compare_set(_KEY, "", f"{step + 1} {self._asked}")
        if not self.store.check([_KEY]):
            return False
        last, self._asked = map(int, self.store.get(_KEY).split())
        return step >= last

    def stopped(self) -> Stopped:
        """Exception to raise, once all is saved."""
        assert self._asked is not None
        return Stopped(self._asked)


@contextmanager
def asked_by_signals() -> Iterator[Stopping]:
    """Listen to the signals; outside of the main thread, where Python cannot, to none."""
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    _follow_launcher()
    before = {number: signal.signal(number, stopping.note) for number in SIGNALS}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow_launcher() -> None:
    """`accelerate launch` of one process does not hand SIGTERM on: be sent one when it is gone. On Linux only."""
    if not sys.platform.startswith("linux") or "WORLD_SIZE" in os.environ:
        return
    with suppress(OSError):
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().split(b"\0")
        if any(word.endswith((b"/accelerate", b"accelerate.commands.launch")) for word in words):
            ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG
