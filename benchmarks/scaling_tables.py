"""Tables: of `benchmarks.scaling_model` for some hardware, and of a record of `benchmarks.scaling_check`."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import scaling_model as model
from benchmarks.scaling_model import Hardware, Job

SIZES = (3e6, 30e6, 114e6, 300e6, 1e9, 2e9, 4e9, 8e9)
"""parameters of the table of limits; the configs here have 0.7 to 114 million"""


def job_lines(job: Job) -> str:
    """What does not depend on the number of GPUs."""
    return (
        f"{job.num_parameters:,} parameters, {job.flops_per_image / 1e9:.4g} GFLOP an image, {job.num_operations:,} "
        f"operations a pass; kept a process {_gb(model.kept_bytes(job))} GB, checkpoint "
        f"{_gb(model.checkpoint_bytes(job))} GB every {job.checkpoint_every:,} steps\n"
    )


def steps_table(job: Job, hardware: Hardware, worlds: Sequence[int], images: int | None) -> str:
    """A row a number of GPUs. "Step" is from all of the exchange hidden to none of it.

    Args:
        images: of a GPU, so that the batch grows; None: the job's batch, shared.
    """
    jobs = {w: job if images is None else model.per_device(job, images, w) for w in worlds}
    alone = model.step_time(jobs[worlds[0]], hardware, worlds[0])
    a_gpu = jobs[worlds[0]].batch_size / alone.nothing_hidden / worlds[0]
    each = ("batch", lambda w, j, t: f"{j.batch_size:,}")
    if images is None:
        each = ("images a GPU", lambda w, j, t: f"{j.images_a_process(w):,}")
    columns: dict[str, Callable[[int, Job, model.StepTime], str]] = {
        "GPUs": lambda w, j, t: f"{w:,}",
        each[0]: each[1],
        "sent a GPU, MB": lambda w, j, t: _short(model.ring_bytes(j.gradient_bytes, w) / 1e6),
        "passes, ms": lambda w, j, t: _short(1000 * t.compute),
        "exchange, ms": lambda w, j, t: _short(1000 * t.exchange),
        "step, ms": lambda w, j, t: _range(1000 * t.all_hidden, 1000 * t.nothing_hidden),
        "images/s": lambda w, j, t: _range(j.batch_size / t.nothing_hidden, j.batch_size / t.all_hidden),
        "of linear": lambda w, j, t: _range(
            100 * j.batch_size / t.nothing_hidden / w / a_gpu, 100 * j.batch_size / t.all_hidden / w / a_gpu, " %"
        ),
        "GB a GPU": lambda w, j, t: _gb(model.peak_bytes(j, w)),
        "waits for saves": lambda w, j, t: f"{100 * model.save_share(j, hardware, w):.2g} %",
    }
    rows = []
    for world, of_world in jobs.items():
        if world > of_world.most_processes:
            rows.append({"GPUs": f"{world:,}", each[0]: f"refused: {of_world.most_processes:,} have work"})
            continue
        time = model.step_time(of_world, hardware, world)
        rows.append({name: show(world, of_world, time) for name, show in columns.items()})
    return _markdown(list(columns), rows)


def limits_table(hardware: Hardware, num_averages: int) -> str:
    """What grows with the parameters alone, under DDP and beyond."""
    rows = []
    for parameters in SIZES:
        job = Job(num_parameters=int(parameters), num_tensors=0, num_averages=num_averages, flops_per_image=0,
                  batch_size=1024)  # fmt: skip
        rest = hardware.memory_bytes - model.kept_bytes(job)
        rows.append(
            {
                "parameters": f"{parameters / 1e6:,.0f} M",
                "kept a GPU, GB": _gb(model.kept_bytes(job)),
                f"left of {hardware.memory_bytes / 1e9:g} GB": _gb(rest) if rest > 0 else "does not fit",
                "sharded over 8": _gb(model.kept_bytes(job, 8)),
                "sent a step on 64, GB": _gb(model.ring_bytes(job.gradient_bytes, 64)),
                "FSDP2, a pass": _gb(model.sharded_ring_bytes(job, 64)),
                "checkpoint, GB": _gb(model.checkpoint_bytes(job)),
                "save, s": _short(model.save_seconds(job, hardware)),
                "host memory of a save, GB": _gb(model.save_host_bytes(job)),
                "read at a resume on 64, GB": _gb(model.resume_bytes(job, 64)),
            }
        )
    return _markdown(list(rows[0]), rows)


def _markdown(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row.get(name, '') for name in columns)} |" for row in rows)])


def _short(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _gb(size: float) -> str:
    return _short(size / 1e9)


def _range(low: float, high: float, unit: str = "") -> str:
    first, last = _short(low), _short(high)
    return f"{first}{unit}" if first == last else f"{first} to {last}{unit}"


def record_table(path: Path) -> str:
    """Steps, sums and the checkpoint of a record, measured beside predicted."""
    record = json.loads(path.read_text())
    rows = [
        {
            "what": line["side"],
            "measured (20 % to 80 %), ms": f"{_short(line['p50'])} ({_range(line['p20'], line['p80'])})",
            "predicted, ms": _predicted(line),
            "relative error": _percent(line["relative error"]),
            "from its own passes": _percent(line.get("relative error, from its own passes")),
        }
        for line in record["rows"]
    ]
    found = ", ".join(f"{name} {value:,}" for name, value in record["found"].items())
    name = f"../benchmarks/results/{path.stem}.md"
    head = f"Record of {record['date']}, {record['hardware']}: [{path.stem}]({name}). Found: {found}."
    return f"{head}\n\n{_markdown(list(rows[0]), rows)}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.1f} %"


def _predicted(line: Mapping[str, Any]) -> str:
    if "predicted bytes" in line:
        return f"{line['predicted bytes']:,} bytes; {line['bytes']:,} there"
    none, hidden = line["predicted, nothing hidden"], line.get("predicted, all hidden")
    return _short(none) if hidden in (None, none) else f"{_short(none)}; all hidden {_short(hidden)}"
