"""Progress bars on the console: on a terminal as tqdm draws them, else a line now and then."""

import io
import math
import os
import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0
"""seconds between lines of progress, where the console is no terminal; a bar's first line comes after as long"""


class _SparseLines(io.TextIOBase):
    """A stream for progress bars where stderr is a file or a pipe: of all frames of all bars, one becomes a line every
    `SECONDS_BETWEEN_LINES`."""

    def __init__(self) -> None:
        self._last = -math.inf

    def write(self, frame: str) -> int:
        line, now = frame.strip(), time.monotonic()
        if line and not line.startswith("\x1b") and now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            print(line, file=sys.stderr, flush=True)
        return len(frame)


_sparse_lines = _SparseLines()


def _terminal_columns() -> int:
    """The width of the terminal that stderr is; 0: it is none, or one that does not tell, as where a program plays it:
    a bar that takes its width from there would be empty."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (AttributeError, OSError, ValueError):
        return 0


def bar_options(title: str, *, is_shown: bool = True, leave: bool = False) -> dict[str, Any]:
    """Options of tqdm for every progress bar, so that none fills a log: see `_SparseLines`."""
    options: dict[str, Any] = {"desc": title, "disable": not is_shown, "leave": leave, "mininterval": 0.5}
    if _terminal_columns() > 0:
        return {**options, "dynamic_ncols": True}
    return {**options, "file": _sparse_lines, "ncols": 0, "delay": SECONDS_BETWEEN_LINES}  # 0: the numbers alone


def progress_bar(
    over: Iterable[Any] | None = None, title: str = "", *, is_shown: bool = True, leave: bool = False, **options: Any
) -> tqdm:
    """A progress bar on the console.

    Args:
        is_shown: on one of several processes.
        leave: the bar on a terminal when it is done.
        options: further ones of tqdm, such as `total`, `initial`, `unit`.
    """
    return tqdm(over, **{**options, **bar_options(title, is_shown=is_shown, leave=leave)})
