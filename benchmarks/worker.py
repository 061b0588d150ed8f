"""One side of a comparison, in a process of its own: python -m benchmarks.worker MODULE:SETUP ARGUMENTS_AS_JSON

SETUP(**arguments) is a context manager that gives a `Measured`. The process then waits: for each line on standard input
it runs once and answers with a line of JSON, so that a parent can let several sides take turns. While it waits it
computes nothing. Whatever the measured code prints goes to standard error.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import psutil


@dataclass(frozen=True)
class Measured:
    """What is run again and again."""

    run: Callable[[], float]
    """does some of the work, to its end (on a GPU: synchronized); returns how many units of it"""
    facts: dict[str, Any] = field(default_factory=dict)
    """plain JSON values that belong into the record"""


def resolve(name: str) -> Callable[..., AbstractContextManager[Measured]]:
    """The function that `package.module:name` names."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def serve(name: str, arguments: dict[str, Any], answer: Callable[[dict[str, Any]], None]) -> None:
    """Set up, then run once for each line that comes in."""
    begin = time.perf_counter()
    with resolve(name)(**arguments) as measured:
        answer({"facts": measured.facts, "setup_seconds": time.perf_counter() - begin})
        for _ in sys.stdin:
            begin = time.perf_counter()
            count = measured.run()
            answer({"seconds": time.perf_counter() - begin, "count": count, "peak_gib": peak_gib()})


def peak_gib() -> float:
    """The most memory this process has held so far: on a GPU its tensors, else all of it."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    if hasattr(os, "wait4"):
        import resource

        scale = 2**10 if sys.platform == "darwin" else 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 / scale
    return psutil.Process().memory_info().rss / 2**30


def main() -> None:
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # prints of the measured code

    def answer(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=channel, flush=True)

    serve(name, arguments, answer)


if __name__ == "__main__":
    main()
