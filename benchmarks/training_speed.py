"""How fast does a training step go, and what does the toolkit itself cost?  python -m benchmarks.training_speed

The paper's U-Net on 28x28 digits: our `fit` against the loop of the paper's listing, and against a bare loop of the
same network, precision and optimizer; diffusers' `UNet2DModel`: our `fit` against the steps of their example script.
Beside them: lucidrains' network and training (`peers/lucidrains.py`; left out if it is not installed), keyed noise as a
share of a step, gradient checkpointing, two processes of one thread against one, the time from start to the first step,
and the matrix product that is the ceiling of it all.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.harness import ROOT, Bar, Runs, Side, interleave, paired, parser, points, row, whole_row, write_record
from benchmarks.peers import lucidrains
from benchmarks.peers.loops import NUM_IMAGES, device, synchronize
from benchmarks.worker import Measured
from fastddpm import draws
from fastddpm.draws import Stream
from fastddpm.precision import resolve_precision
from fastddpm.process import runs_on_cpu
from fastddpm.training.cost import device_peak_flops
from fastddpm.training.metrics import read_metrics

OURS, PLAIN, BARE = "ours", "plain loop, fp32", "bare loop"
OURS_STOCK, EXAMPLE = "UNet2DModel, ours", "UNet2DModel, example loop, fp32"
LUCIDRAINS = "lucidrains' Unet and GaussianDiffusion, fp32"
KEYED, CHECKPOINTED, COMPILED = "keyed noise alone", "ours, gradient checkpointing", ", compiled"


def main() -> None:
    given = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        runs = interleave(sides(given, Path(folder)), rounds=given.rounds, title="training")
        ceiling = interleave(_products(given), rounds=given.rounds, title="matrix products")
        more, more_bars = ([], []) if given.no_processes else whole_runs(given, Path(folder))
    best = {name: points(found.rates)[2] for name, found in ceiling.items()}
    units = {name: "images/s, noise alone" if name == KEYED else "images/s" for name in runs}
    rows = [row(name, found, units[name], **_share(name, found, best)) for name, found in runs.items()]
    rows += [row(name, found, "GFLOP/s") for name, found in ceiling.items()]
    write_record(given.out, "Training speed", rows + more, bars(runs) + more_bars, settings=vars(given) | {"out": None})


def _arguments() -> argparse.Namespace:
    asked = parser(__doc__, "training-speed")
    asked.add_argument("--steps", type=int, default=4, help="of a round")
    asked.add_argument("--batch_size", type=int, default=128)
    asked.add_argument("--no_processes", action="store_true", help="leave out what starts whole runs")
    asked.add_argument("--no_compile", action="store_true", help="leave out what is compiled")
    return asked.parse_args()


def sides(given: argparse.Namespace, folder: Path) -> dict[str, Side]:
    """Everything that takes steps, each in its own process."""
    precision = resolve_precision("auto", runs_on_cpu())
    paper, stock = ([4, 8, 16], [8, 16]) if given.tiny else ([64, 128, 256], [32, 64, 128])
    size = {"batch_size": given.batch_size, "steps": given.steps}
    of_paper = {"config": "mnist-paper", "model.block_out_channels": paper}
    of_stock = {
        "config": None, "model.architecture": "UNet2DModel", "model.block_out_channels": stock,
        "model.layers_per_block": 1, "model.attention_levels": [len(stock) - 2], "model.attention_head_dim": 8,
        "model.norm_num_groups": min(stock),
    }  # fmt: skip
    bare = Side("benchmarks.peers.loops:bare_loop", size | {"widths": paper, "precision": precision})
    example = size | {"widths": stock, "layers": 1, "groups": min(stock)}
    found = {
        OURS: _ours(given, folder / "paper", of_paper),
        PLAIN: Side("benchmarks.peers.loops:plain_loop", size | {"widths": paper}),
        BARE: bare,
        CHECKPOINTED: _ours(given, folder / "checkpointed", of_paper | {"train.gradient_checkpointing": True}),
        KEYED: Side("benchmarks.training_speed:keyed_noise", size),
        OURS_STOCK: _ours(given, folder / "stock", of_stock),
        EXAMPLE: Side("benchmarks.peers.loops:example_loop", example),
    }
    if lucidrains.is_installed():
        of_theirs = size | (lucidrains.TINY_SIZE if given.tiny else lucidrains.SIZE)
        found[LUCIDRAINS] = Side("benchmarks.peers.lucidrains:training", of_theirs)
    if not given.no_compile:
        compiled = {"train.compile": True}
        found[OURS + COMPILED] = _ours(given, folder / "paper-compiled", of_paper | compiled)
        found[BARE + COMPILED] = Side(bare.setup, {**bare.arguments, "compile": True})
        found[OURS_STOCK + COMPILED] = _ours(given, folder / "stock-compiled", of_stock | compiled)
    return found


def _ours(given: argparse.Namespace, folder: Path, settings: Mapping[str, Any]) -> Side:
    settings = {"train.compile": False, **settings}  # compiled where its name says so
    overrides = {k: json.dumps(v) for k, v in settings.items() if k != "config"} | {
        "output_dir": str(folder), "data.source": "digits", "data.num_images": NUM_IMAGES, "data.num_held_out": 0,
        "train.batch_size": given.batch_size,
    }  # fmt: skip
    arguments = {"config": settings["config"], "overrides": overrides, "steps": given.steps}
    return Side("benchmarks.ours:training", arguments)


def _products(given: argparse.Namespace) -> dict[str, Side]:
    side = 64 if given.tiny else 2048
    return {
        f"matrix product, {dtype}": Side("benchmarks.gemm:gemm", {"side": side, "dtype": dtype, "repeats": 4})
        for dtype in ("float32", "bfloat16")
    }


def bars(runs: Mapping[str, Runs]) -> list[Bar]:
    """What must be reached on two CPU cores."""
    share = 1 / paired(runs, KEYED, OURS)["p50"]
    compiled = runs.get(OURS_STOCK + COMPILED)
    fastest = (
        OURS_STOCK + COMPILED if compiled and median(compiled.rates) > median(runs[OURS_STOCK].rates) else OURS_STOCK
    )
    return [
        Bar("paper's U-Net, our fit against the plain loop", paired(runs, OURS, PLAIN)["p50"], 2.2),
        Bar("the same against a bare loop", paired(runs, OURS, BARE)["p50"], 0.97),
        Bar("keyed noise, share of a step", share, 0.05, at_most=True),
        Bar(f"{fastest} against the example loop", paired(runs, fastest, EXAMPLE)["p50"], 1.7),
    ]


def _share(name: str, runs: Runs, ceiling: Mapping[str, float]) -> dict[str, Any]:
    """What a side computes a second, forwards and backwards, and its share of the matrix product's rate and of the
    vendor's peak, where that is known."""
    if "GFLOP an image" not in runs.facts:
        return {}
    rate = median(runs.rates) * runs.facts["GFLOP an image"]
    precision = "no" if "fp32" in name else resolve_precision("auto", runs_on_cpu())
    product = ceiling["matrix product, float32" if precision == "no" else "matrix product, bfloat16"]
    peak = device_peak_flops(device(), precision)
    shares = {"share of the matrix product": round(rate / product, 3)}
    shares["share of the vendor's peak"] = "n/a" if peak is None else round(rate * 1e9 / peak, 3)
    return {"GFLOP/s": round(rate, 1), **shares}


@contextmanager
def keyed_noise(*, batch_size: int, steps: int) -> Iterator[Measured]:
    """The keyed noise of `steps` training steps a round."""

    def run() -> int:
        for step in range(steps):
            positions = torch.arange(step * batch_size, (step + 1) * batch_size, device=device())
            draws.normal(positions, (1, 28, 28), seed=0, stream=Stream.TRAIN_NOISE)
        synchronize()
        return steps * batch_size

    yield Measured(run, {})


# ------------------------------------------------------------------------------------------ whole runs


def whole_runs(given: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], list[Bar]]:
    """One and more processes (of one thread each, or a GPU each), in turn; and the time to the first step."""
    counts, each = world_sizes(), "one thread" if runs_on_cpu() else "a GPU"
    seen: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    first_steps = []
    for number in tqdm(range(1 if given.tiny else 3), "whole runs", leave=False):
        for processes in counts if number % 2 == 0 else counts[::-1]:
            seen[processes].append(_rate(given, folder / f"{processes}-{number}", processes))
        first_steps.append(_seconds_to_first_step(given, folder / f"first-{number}"))
    rates = {count: [rate for rate, _ in found] for count, found in seen.items()}
    rows = [
        whole_row(
            f"ours, {count} process(es) of {each}", found, "images/s",
            **{"waiting for data": round(median(share for _, share in seen[count]), 4)},
        )
        for count, found in rates.items()
    ]  # fmt: skip
    rows.append(whole_row("start to first step, cached data, not compiled", first_steps, "s"))
    bars = [
        Bar(
            f"{count} processes against {count} times one",
            median(more / one / count for one, more in zip(rates[1], rates[count], strict=True)), 0.93,
        )
        for count in counts[1:]
    ]  # fmt: skip
    return rows, [*bars, Bar("seconds to the first step", median(first_steps), 10, at_most=True)]


def world_sizes() -> list[int]:
    """One and two processes on a CPU; on GPUs 1, 2, 4, ... up to all of them."""
    most = 2 if runs_on_cpu() else torch.cuda.device_count()
    return [2**power for power in range(most.bit_length())]


def _command(given: argparse.Namespace, folder: Path, processes: int, settings: Mapping[str, Any]) -> list[str]:
    values = {
        "config": "mnist-paper", "out": folder, "data.source": "digits", "data.num_images": NUM_IMAGES,
        "data.num_held_out": 0, "sample.num_images": 1, "sample.num_inference_steps": 1, "watch.nearest": "false",
        "train.evaluate_every": 0, **settings,
    }  # fmt: skip
    if given.tiny:
        values["model.block_out_channels"] = "[4,8,16]"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    return [sys.executable, *(launcher if processes > 1 else []), "-m", "fastddpm", "train", *words]


def _rate(given: argparse.Namespace, folder: Path, processes: int) -> tuple[float, float]:
    """Of `rate_of_run`, the same images a process."""
    batch = given.batch_size * processes
    return rate_of_run(given, folder, processes, {"train.batch_size": batch}, 4 if given.tiny else 6 * given.steps)


def rate_of_run(
    given: argparse.Namespace, folder: Path, processes: int, settings: Mapping[str, Any], steps: int
) -> tuple[float, float]:
    """Images a second of a run of processes with one thread each, and the share of time waiting for data: medians of
    its rows but the first.

    Args:
        settings: on top of `mnist-paper`; `train.batch_size` among them.
    """
    settings = {
        **settings, "train.num_images_seen": settings["train.batch_size"] * steps,
        "train.log_every": max(1, steps // 6), "train.num_threads": 1,
    }  # fmt: skip
    env = os.environ | ({"ACCELERATE_USE_CPU": "true"} if runs_on_cpu() else {})
    subprocess.run(_command(given, folder, processes, settings), cwd=ROOT, env=env, check=True, capture_output=True)
    rows = [line for line in read_metrics(folder / "metrics.jsonl") if "images_per_second" in line][1:]
    return median(line["images_per_second"] for line in rows), median(line["data_wait_share"] for line in rows)


def _seconds_to_first_step(given: argparse.Namespace, folder: Path) -> float:
    """From the start of the process to the first row of metrics.jsonl."""
    settings = {"train.batch_size": given.batch_size, "train.num_images_seen": given.batch_size, "train.log_every": 1}
    begin = time.perf_counter()
    process = subprocess.Popen(
        _command(given, folder, 1, settings), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (folder / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.02)
    seconds = time.perf_counter() - begin
    if process.wait():
        raise RuntimeError(f"a run of one step in {folder} failed")
    return seconds


if __name__ == "__main__":
    main()
