"""Rows of metrics.jsonl, read from the device only when a row is due."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from fastddpm.files import naming, write_text

QUARTILES = 4
MOST_WAITING = 4096
"""micro-batches whose losses are kept before they are added up"""


class LossMeter:
    """Sums of losses since the last row, by timestep quartile, kept on the device: reading them is the only sync."""

    def __init__(self, num_train_timesteps: int, device: torch.device):
        self._width = -(-num_train_timesteps // QUARTILES)
        self._sums = torch.zeros(2, QUARTILES, dtype=torch.float64, device=device)  # losses; their number
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, losses: Tensor, timesteps: Tensor) -> None:
        """Count (B,) losses at (B,) timesteps."""
        self._waiting.append((losses.detach(), timesteps))
        if len(self._waiting) == MOST_WAITING:
            self._catch_up()

    @property
    def sums(self) -> Tensor:
        """(2, QUARTILES), float64: losses of the open row; their number."""
        self._catch_up()
        return self._sums

    def _catch_up(self) -> None:
        """Add up what waits, in its order, at once."""
        if self._waiting:
            losses, timesteps = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
            rows = torch.stack([losses.double(), torch.ones_like(losses, dtype=torch.float64)])
            self._sums.index_add_(1, timesteps // self._width, rows)
            self._waiting.clear()

    def gather(self, accelerator: Accelerator) -> None:
        """Move every rank's sums to the main one, so that a checkpoint or a row holds them all."""
        if accelerator.num_processes == 1:
            return
        total = accelerator.reduce(self.sums, reduction="sum")
        self._sums = total if accelerator.is_main_process else torch.zeros_like(total)

    def read_and_reset(self) -> tuple[float, list[float | None]]:
        """The mean loss and that of each quartile (None: no image fell there), after `gather`, on the main rank."""
        sums, counts = self.sums.tolist()
        self._sums.zero_()
        mean = sum(sums) / max(sum(counts), 1.0)
        return mean, [s / n if n else None for s, n in zip(sums, counts, strict=True)]


class MetricsLog:
    """Appends rows to metrics.jsonl, and gives each to `send`; only the main rank's does anything."""

    def __init__(self, path: Path, enabled: bool, send: Callable[[Mapping[str, Any]], None] | None = None):
        self._path, self._enabled, self._send = path, enabled, send
        self._clock, self._images, self._waited = time.perf_counter(), 0, 0.0
        self.newest: dict[str, Any] = {}
        """newest value of each name"""

    def start_clock(self, images_seen: int) -> None:
        """Throughput counts from here."""
        self._clock, self._images = time.perf_counter(), images_seen

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause for what is not training: throughput does not count its time."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self._clock += time.perf_counter() - before

    def throughput(self, images_seen: int, waited_seconds: float) -> tuple[float, float]:
        """Images a second, and the share of the time in which training waited for data (`waited_seconds` in all): both
        since the last call of this or of `start_clock`."""
        now = time.perf_counter()
        seconds = max(now - self._clock, 1e-9)
        rate, share = (images_seen - self._images) / seconds, (waited_seconds - self._waited) / seconds
        self._clock, self._images, self._waited = now, images_seen, waited_seconds
        return rate, share

    def write(self, **row: Any) -> None:
        """Append a row and flush it; a number that is not finite becomes null: JSON has no other word for it."""
        if not self._enabled:
            return
        row = {name: _finite(value) for name, value in row.items()}
        self.newest |= row
        with naming(self._path), self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self._send is not None:
            self._send(row)

    def cut_off_after(self, step: int) -> None:
        """Drop rows of later steps and a torn last line: the run goes on from `step`."""
        if not self._enabled or not self._path.exists():
            return
        kept = [json.dumps(row) + "\n" for row in read_metrics(self._path) if row["step"] <= step]
        write_text(self._path, "".join(kept))


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, none where there is no file yet; a torn last line is left out."""
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def training_time(rows: Sequence[Mapping[str, Any]]) -> tuple[float, int]:
    """Seconds of the training loop alone, over all restarts, and the images seen in them, by rows of metrics.jsonl."""
    seconds, seen = 0.0, 0
    for row in rows:
        if row.get("images_per_second"):
            seconds += (row["images_seen"] - seen) / row["images_per_second"]
            seen = row["images_seen"]
    return seconds, seen
