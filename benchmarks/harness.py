"""Sides that take turns, medians of paired ratios, and dated records.

Every comparison is made the same way. Each side is a process (`benchmarks.worker`) with its own memory, threads and
precision. All are set up first; then, round by round, each runs once while the others wait, in an order that turns with
the round. So whatever else the machine does meets all of them, and a ratio is the median of the ratios within a round.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""our loop runs in a thread (`ours.py`), and glibc gives a thread an allocator that behaves otherwise"""
PACKAGES = ("torch", "diffusers", "accelerate", "triton", "numpy")


@dataclass(frozen=True)
class Side:
    """One of the things that are compared."""

    setup: str
    """`package.module:function`; see `benchmarks.worker`"""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """of the function, plain JSON values"""
    env: Mapping[str, str] = field(default_factory=dict)
    """added to the environment"""


@dataclass(frozen=True)
class Runs:
    """What was seen of one side."""

    rates: list[float]
    """units a second, a round each"""
    setup_seconds: float
    peak_gib: float
    facts: dict[str, Any]

    def spread(self) -> dict[str, float]:
        """20 %, 50 % and 80 % points of the rates."""
        low, middle, high = points(self.rates)
        return {"p20": round(low, 4), "p50": round(middle, 4), "p80": round(high, 4)}


@dataclass(frozen=True)
class Bar:
    """A number that must be reached."""

    name: str
    got: float
    wanted: float
    at_most: bool = False
    """the number must not be above `wanted`, instead of not below"""

    @property
    def is_reached(self) -> bool:
        """Whether it is."""
        return self.got <= self.wanted if self.at_most else self.got >= self.wanted

    def __str__(self) -> str:
        word = "pass" if self.is_reached else "FAIL"
        return (
            f"{word}  {self.name}: {self.got:.3g}, wanted {'at most' if self.at_most else 'at least'} {self.wanted:g}"
        )


def points(values: Sequence[float]) -> tuple[float, float, float]:
    """20 %, 50 % and 80 % points."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return fifths[0], statistics.median(values), fifths[3]


def paired(runs: Mapping[str, Runs], ours: str, other: str) -> dict[str, float]:
    """How many times as fast `ours` is as `other`: 20 %, 50 % and 80 % points of the ratios within a round."""
    ratios = [a / b for a, b in zip(runs[ours].rates, runs[other].rates, strict=True)]
    return dict(zip(("p20", "p50", "p80"), (round(x, 4) for x in points(ratios)), strict=True))


def interleave(sides: Mapping[str, Side], *, rounds: int, warm_up: int = 1, title: str = "") -> dict[str, Runs]:
    """Run every side `rounds` times, in turn.

    Args:
        warm_up: first rounds that do not count.
    Raises: RuntimeError: a side failed; its last lines are in the message.
    """
    with ExitStack() as stack:
        workers = {name: stack.enter_context(_Worker(name, side)) for name, side in sides.items()}
        ready = {name: worker.read() for name, worker in workers.items()}
        seen: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for number in tqdm(range(warm_up + rounds), title or "rounds", leave=False, dynamic_ncols=True):
            for name in _turned(list(sides), number):
                seen[name].append(workers[name].run())
    return {
        name: Runs(
            rates=[run["count"] / run["seconds"] for run in all_runs[warm_up:]],
            setup_seconds=round(ready[name]["setup_seconds"], 3),
            peak_gib=round(all_runs[-1]["peak_gib"], 3),
            facts=ready[name]["facts"],
        )
        for name, all_runs in seen.items()
    }


def _turned(names: list[str], number: int) -> list[str]:
    first = number % len(names)
    return names[first:] + names[:first]


class _Worker:
    """A side's process."""

    def __init__(self, name: str, side: Side):
        self._name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", side.setup, json.dumps(dict(side.arguments))],
            cwd=ROOT, env={**os.environ, **ONE_ARENA, **side.env}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # its loop ends
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._log.close()

    def run(self) -> dict[str, Any]:
        """Let it run once."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        """Its next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait(60)
        self._log.seek(0)
        raise RuntimeError(f"{self._name} ended with {self._process.returncode}:\n{self._log.read()[-3000:]}")


# ------------------------------------------------------------------------------------------ records


def conditions() -> dict[str, Any]:
    """What a record was made with; what cannot be found out is n/a."""
    import torch

    from fastddpm.process import device_name

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "hardware": device_name(device),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "n/a"


def _commit() -> str:
    words = ["git", "describe", "--always", "--dirty", "--abbrev=8", "--exclude=*"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "n/a"


def parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """The options of every benchmark; `name` is that of its record."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ROOT / "benchmarks" / "results" / f"{time.strftime('%Y-%m-%d')}-{name}"
    made.add_argument("--out", type=Path, default=default, help="the record, without a suffix (%(default)s)")
    made.add_argument("--rounds", type=int, default=9)
    made.add_argument("--tiny", action="store_true", help="tiny sizes: whether it works, not how fast it is")
    return made


def row(name: str, runs: Runs, unit: str, **more: Any) -> dict[str, Any]:
    """A side of a comparison, as it stands in a record."""
    values = {"side": name, "unit": unit, **runs.spread(), "peak GiB": runs.peak_gib}
    return values | {"setup seconds": runs.setup_seconds} | runs.facts | more


def whole_row(name: str, values: Sequence[float], unit: str, **more: Any) -> dict[str, Any]:
    """Something that was not a side: what whole processes took or gave."""
    return {"side": name, "unit": unit, **dict(zip(("p20", "p50", "p80"), points(values), strict=True)), **more}


def write_record(
    path: Path, title: str, rows: Iterable[Mapping[str, Any]], bars: Sequence[Bar] = (), **more: Any
) -> None:
    """Write `path`.json, the same as a table in `path`.md, and a picture of the rates in `path`.png."""
    table = [dict(line) for line in rows]
    record = {"title": title, **conditions(), **more, "rows": table}
    record["bars"] = [{**asdict(bar), "is_reached": bar.is_reached} for bar in bars]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(as_markdown(record))
    draw(record, path.with_suffix(".png"))
    print("\n".join(str(bar) for bar in bars))
    print(f"record: {path.with_suffix('.json')}")


def as_markdown(record: Mapping[str, Any]) -> str:
    """A record to read: its conditions, its rows and its bars."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [f"# {record['title']}", "", f"{record['date']}, {record['commit']}, {record['hardware']}; {versions}.", ""]
    columns = list(dict.fromkeys(name for line in record["rows"] for name in line))
    if columns:
        lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(_shown(line.get(name, '')) for name in columns)} |" for line in record["rows"]]
    lines += ["", *(f"- {Bar(**{k: v for k, v in bar.items() if k != 'is_reached'})}" for bar in record["bars"])]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw(record: Mapping[str, Any], path: Path) -> None:
    """The medians of a record's rows as bars with their 20 % to 80 % range, a panel a unit."""
    import matplotlib.pyplot as plt

    rows = [line for line in record["rows"] if "p50" in line]
    units = list(dict.fromkeys(line["unit"] for line in rows))
    if not units:
        return
    counts = [sum(line["unit"] == unit for line in rows) for unit in units]
    figure, axes = plt.subplots(
        len(units), squeeze=False, figsize=(9, 0.9 * len(units) + 0.36 * len(rows)), height_ratios=counts,
        layout="constrained",
    )  # fmt: skip
    for axis, unit in zip(axes[:, 0], units, strict=True):
        shown = [line for line in rows if line["unit"] == unit]
        middle = [line["p50"] for line in shown]
        error = [[line["p50"] - line["p20"] for line in shown], [line["p80"] - line["p50"] for line in shown]]
        bars = axis.barh([line["side"] for line in shown], middle, xerr=error, color="#4878a8", ecolor="#888888")
        axis.bar_label(bars, fmt="%.4g", padding=4)
        axis.set(xlabel=unit)
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.15)
    figure.suptitle(f"{record['title']}\n{record['hardware']}, {record['date']}", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)
