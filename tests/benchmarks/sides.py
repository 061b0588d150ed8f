"""Sides for the tests of the harness: they note their turns in a file."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.worker import Measured


@contextmanager
def sleeper(*, name: str, seconds: float, log: str) -> Iterator[Measured]:
    """Two units in so many seconds."""

    def run() -> int:
        print("what the measured code says")  # must not be taken for an answer
        with Path(log).open("a") as file:
            file.write(f"{name}\n")
        time.sleep(seconds)
        return 2

    yield Measured(run, {"name": name})
    with Path(log).open("a") as file:
        file.write(f"{name} left\n")


@contextmanager
def failing() -> Iterator[Measured]:
    """Breaks when it is run."""

    def run() -> int:
        raise ValueError("no such thing")

    yield Measured(run)
