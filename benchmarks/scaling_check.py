"""What `benchmarks.scaling_model` says of 1, 2 and 4 processes here, and what they do.

Measured alone: the passes and the update of one process, and sums of several sizes over two. From these the formulas
say how long whole steps of 1, 2 and 4 processes take; whole steps are measured too. A process has one thread; more
processes than cores share them.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks import scaling_model as model
from benchmarks.harness import ROOT, Bar, whole_row
from benchmarks.scaling_model import Hardware, Job, Link
from fastddpm.process import runs_on_cpu

MARGINS = {1: 0.1, 2: 0.15, 4: 0.3}
"""of a predicted step, relative to the measured one: the more is predicted rather than measured, the wider"""
CHECKPOINT_MARGIN = 0.02
"""of a checkpoint's bytes: names, JSON and checksums are not counted"""


@dataclass(frozen=True)
class Case:
    """What some processes did, a round each."""

    job: Job
    images: int
    """of a process and a step, in one pass"""
    world_size: int
    rounds: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """As it stands in a record."""
        return f"{self.images} images a process, {self.world_size} process(es)"

    def values(self, part: str) -> list[float]:
        """Seconds of whole, compute or update, a round each."""
        return [found[part] for found in self.rounds]


def measure(
    config: str | None, overrides: Mapping[str, Any], job: Job, *, images: Sequence[int], processes: Sequence[int],
    steps: int, rounds: int,
) -> list[Case]:  # fmt: skip
    """Run every number of processes with every number of images a process, in turn.

    Args:
        images: of a process, in one pass: the batch grows with the processes.
    Raises: RuntimeError: a run failed; its last lines are in the message.
    """
    cases = {(i, w): Case(model.per_device(job, i, w), i, w, []) for i in images for w in processes}
    with tempfile.TemporaryDirectory() as place:
        for number in tqdm(range(rounds), "rounds", leave=False):
            for case in list(cases.values())[:: 1 if number % 2 == 0 else -1]:
                folder = Path(place) / f"{case.job.batch_size}-{case.world_size}-{number}"
                case.rounds.append(_run(config, overrides, case, steps, folder))
    return list(cases.values())


def _run(config: str | None, overrides: Mapping[str, Any], case: Case, steps: int, folder: Path) -> dict[str, Any]:
    settings = {
        **overrides, "output_dir": str(folder / "run"), "train.batch_size": case.job.batch_size,
        "train.num_images_seen": 10**9, "train.num_threads": 1, "train.mixed_precision": "no",
    }  # fmt: skip
    folder.mkdir()
    given, out = folder / "given.json", folder / "out.json"
    given.write_text(json.dumps({"config": config, "overrides": settings, "steps": steps}))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(case.world_size)]
    words = [*(launcher if case.world_size > 1 else []), "-m", "benchmarks.scaling_worker", str(given), str(out)]
    env = os.environ | {"OMP_NUM_THREADS": "1"} | ({"ACCELERATE_USE_CPU": "true"} if runs_on_cpu() else {})
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{case.world_size} process(es) ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(out.read_text())


def fit_link(seconds: Mapping[int, float], world_size: int) -> Link:
    """Bandwidth and latency whose ring is nearest to measured sums, by relative error.

    Args:
        seconds: bytes -> seconds.
    """
    terms = [(model.ring_bytes(size, world_size) / took, 2 * (world_size - 1) / took) for size, took in seconds.items()]
    (a_byte, latency), *_ = np.linalg.lstsq(np.array(terms), np.ones(len(terms)), rcond=None)
    return Link(bytes_a_second=float(1 / max(a_byte, 1e-15)), latency_seconds=max(0.0, float(latency)))


def calibrated(alone: Case, number: int, link: Link, num_cores: int) -> Hardware:
    """This machine, from the parts of one process in one round, and a link."""
    job, found = alone.job, alone.rounds[number]
    return Hardware(
        flops_a_second=job.flops_per_image * job.batch_size / found["compute"],
        memory_bytes_a_second=model.update_bytes(job) / found["update"],
        within=link, between=link, devices_a_node=2**20, memory_bytes=float("inf"),
        disk_bytes_a_second=found["checkpoint"]["bytes"] / found["checkpoint"]["seconds"],
        hash_bytes_a_second=float("inf"), num_slots=num_cores,
    )  # fmt: skip


def judged(cases: Sequence[Case], num_cores: int) -> tuple[list[dict[str, Any]], list[Bar]]:
    """Rows and bars of a record, measured beside predicted; needs one process, and two for the link."""
    link, alone = link_of_two(cases), {case.images: case for case in cases if case.world_size == 1}
    rows, bars = [], []
    for case in cases:
        hardware = [calibrated(alone[case.images], i, link, num_cores) for i in range(len(case.rounds))]
        rows.append(_step_row(case, hardware))
        error, margin = abs(rows[-1]["relative error"]), MARGINS.get(case.world_size, MARGINS[4])
        bars.append(Bar(f"{case.name}: relative error of the step", error, margin, at_most=True))
    any_hardware = calibrated(cases[0], 0, link, num_cores)
    for world_size in sorted({case.world_size for case in cases} - {1}):
        rows += _sum_rows([case for case in cases if case.world_size == world_size], any_hardware)
    rows.append(row := _checkpoint_row(cases))
    error = abs(row["relative error"])
    return rows, [*bars, Bar("bytes of a checkpoint, relative error", error, CHECKPOINT_MARGIN, at_most=True)]


def facts(cases: Sequence[Case], num_cores: int) -> dict[str, Any]:
    """What the machine was found to do, for the record."""
    link = link_of_two(cases)
    rates = {
        f"GFLOP/s of a process with {case.images} images":
        round(case.job.flops_per_image * case.job.batch_size / median(case.values("compute")) / 1e9, 1)
        for case in cases if case.world_size == 1
    }  # fmt: skip
    return {
        "parameters": cases[0].job.num_parameters, "cores": num_cores, **rates,
        "GB/s of a link": round(link.bytes_a_second / 1e9, 3),
        "microseconds of a message": round(1e6 * link.latency_seconds, 1),
    }  # fmt: skip


def link_of_two(cases: Sequence[Case]) -> Link:
    """Fitted to the sums over two processes."""
    return fit_link(_sums([case for case in cases if case.world_size == 2]), 2)


def _step_row(case: Case, hardware: Sequence[Hardware]) -> dict[str, Any]:
    """Medians over the rounds; each prediction is made from the same round's process that was alone."""
    expected = [model.step_time(case.job, each, case.world_size) for each in hardware]
    whole, compute, update = (case.values(part) for part in ("whole", "compute", "update"))
    from_own_parts = [c + u + e.exchange for c, u, e in zip(compute, update, expected, strict=True)]

    def error(predicted: Sequence[float]) -> float:
        return round(median(p / w for p, w in zip(predicted, whole, strict=True)) - 1, 4)

    return whole_row(
        case.name, [1000 * seconds for seconds in whole], "ms a step",
        **{
            "predicted, nothing hidden": round(1000 * median(e.nothing_hidden for e in expected), 2),
            "predicted, all hidden": round(1000 * median(e.all_hidden for e in expected), 2),
            "relative error": error([e.nothing_hidden for e in expected]),
            "relative error, from its own passes": error(from_own_parts),
            "passes": round(1000 * median(compute), 2),
            "update": round(1000 * median(update), 2),
            "exchange, predicted": round(1000 * median(e.exchange for e in expected), 2),
            "peak GiB": round(max(found["peak_gib"] for found in case.rounds), 3),
        },
    )  # fmt: skip


def _sum_rows(cases: Sequence[Case], hardware: Hardware) -> list[dict[str, Any]]:
    """The smallest sum, which is latency alone, and that of the gradient in one call."""
    world_size, rows = cases[0].world_size, []
    for size in (model.BYTES, cases[0].job.gradient_bytes):
        seconds = [dict(found["sums"])[size] for case in cases for found in case.rounds]
        expected = model.exchange_seconds(size, world_size, hardware)
        more = {
            "predicted, nothing hidden": round(1000 * expected, 3),
            "relative error": round(expected / median(seconds) - 1, 4),
            "sent a process, bytes": round(model.ring_bytes(size, world_size)),
        }
        name = f"sum of {size:,} bytes over {world_size} processes"
        rows.append(whole_row(name, [1000 * s for s in seconds], "ms a sum", **more))
    return rows


def _checkpoint_row(cases: Sequence[Case]) -> dict[str, Any]:
    saves = [found["checkpoint"] for case in cases for found in case.rounds]
    size, expected = saves[0]["bytes"], model.checkpoint_bytes(cases[0].job)
    more = {"bytes": size, "predicted bytes": expected, "relative error": round(expected / size - 1, 5)}
    return whole_row("checkpoint, by one process", [1000 * save["seconds"] for save in saves], "ms a save", **more)


def _sums(cases: Sequence[Case]) -> dict[int, float]:
    """bytes -> median seconds of a sum, over all rounds."""
    sizes = [size for size, _ in cases[0].rounds[0]["sums"]]
    return {size: median(dict(r["sums"])[size] for case in cases for r in case.rounds) for size in sizes}
