"""Same pictures, same minutes, same judge: our recommended config against diffusers' train_unconditional.py.

    python benchmarks/colour_set.py PICTURES SPLITS --side 32
    python benchmarks/against_train_unconditional.py SPLITS --script train_unconditional.py --work WORK --out RECORD.json

All processes of a round start at the same moment, with one thread each, and share the same cores, so that other load on
the machine meets all of them; beside its minutes, each has its processor time in the record. Theirs is the script as it ships but for the picture
size, the folders, the seed, the number of epochs (`--num_epochs`), and its preview of 16 pictures, which takes one step
instead of 1,000, so that its minutes are minutes of training. A second row gives it a warm-up that suits a run of this
length. Ours is as long as `--num_images_seen` says: choose it so that ours ends first; a record where theirs had fewer
minutes says so. Then every result is drawn from and judged by `colour_quality.py`; WORK keeps the runs, and a second call
with the same WORK only judges.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import accelerate
import diffusers
import numpy as np
import torch
from colour_judge import degradation_table
from colour_quality import draw, floor, measure, parts
from colour_set import read_images
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
OURS, SHIPPED, WARM = "ours", "as shipped", "warm-up of 50 steps"


@dataclass
class Job:
    """One training process."""

    side: str
    seed: int
    folder: Path
    command: list[str]
    process: subprocess.Popen | None = None
    minutes: float = 0.0
    cpu_minutes: float = 0.0

    def start(self) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
        env["PYTHONPATH"] = str(ROOT)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        log = open(f"{self.folder}.log", "w")  # noqa: SIM115 - the process keeps it
        self.process = subprocess.Popen(self.command, cwd=ROOT, env=env, stdout=log, stderr=log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splits", type=Path, help="made by colour_set.py")
    parser.add_argument("--script", type=Path, required=True, help="train_unconditional.py, unchanged")
    parser.add_argument("--work", type=Path, required=True, help="a new folder for runs and samples")
    parser.add_argument("--out", type=Path, required=True, help="the record")
    parser.add_argument("--sheet", type=Path, help="a PNG with reals and samples of the first seed")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "recommended-32.yaml")
    parser.add_argument("--num_images_seen", type=int, required=True, help="length of our runs")
    parser.add_argument("--num_epochs", type=int, default=1, help="length of theirs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--warm_seeds", type=int, nargs="*", default=[0, 1], help="seeds of the row with a warm-up")
    parser.add_argument("--seeds_at_once", type=int, default=1, help="rounds of this many seeds")
    parser.add_argument("--num_samples", type=int, default=500)
    parser.add_argument("--num_inference_steps", type=int, default=12)
    given = parser.parse_args()
    given.splits, given.work = given.splits.resolve(), given.work.resolve()  # the runs start in another folder
    jobs = all_jobs(given)
    if not (given.work / "minutes.json").exists():
        given.work.mkdir(parents=True)
        for begin in range(0, len(given.seeds), given.seeds_at_once):
            run_together([job for job in jobs if job.seed in given.seeds[begin : begin + given.seeds_at_once]])
        (given.work / "minutes.json").write_text(json.dumps({j.folder.name: [j.minutes, j.cpu_minutes] for j in jobs}))
    for name, minutes in json.loads((given.work / "minutes.json").read_text()).items():
        job = next(job for job in jobs if job.folder.name == name)
        job.minutes, job.cpu_minutes = minutes
    record = {**conditions(given), "rows": judge_all(jobs, given)}
    record["theirs had at least our minutes"] = _is_fair(jobs)
    given.out.write_text(json.dumps(record, indent=1) + "\n")
    if given.sheet:
        write_sheet(given.splits, given.work, given.sheet)


def all_jobs(given: argparse.Namespace) -> list[Job]:
    """Every run, by seed."""
    jobs = []
    for seed in given.seeds:
        for side in [OURS, SHIPPED, WARM] if seed in given.warm_seeds else [OURS, SHIPPED]:
            folder = given.work / f"{side.replace(' ', '-')}-seed-{seed}"
            command = our_command(given, folder, seed) if side == OURS else their_command(given, folder, seed, side)
            jobs.append(Job(side, seed, folder, command))
    return jobs


def our_command(given: argparse.Namespace, folder: Path, seed: int) -> list[str]:
    settings = {
        "output_dir": folder, "seed": seed, "data.source": given.splits / "train",
        "train.num_images_seen": given.num_images_seen, "train.num_threads": 1, "train.evaluate_every": 0,
        "train.preview_every": 0, "data.num_held_out": 0, "sample.num_images": 16, "sample.num_inference_steps": 1,
        "data.cache_dir": given.work / "cache",
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "fastddpm", "train", "--config", str(given.config.resolve()), *words]


def their_command(given: argparse.Namespace, folder: Path, seed: int, side: str) -> list[str]:
    settings = {
        "train_data_dir": given.splits / "train", "output_dir": folder,
        "resolution": _side_of(given.splits), "num_epochs": given.num_epochs, "ddpm_num_inference_steps": 1,
        "cache_dir": f"{folder}-cache",
    }  # fmt: skip
    if side == WARM:
        settings["lr_warmup_steps"] = 50
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return [sys.executable, str(ROOT / "benchmarks" / "seeded.py"), str(seed), str(given.script.resolve()), *words]


def run_together(jobs: list[Job]) -> None:
    """Start all at once and wait for all; notes the wall time and the processor time of each.

    Raises: RuntimeError: one failed; its log is named.
    """
    begin = time.perf_counter()
    for job in jobs:
        job.start()
    by_pid = {job.process.pid: job for job in jobs if job.process is not None}
    while by_pid:
        pid, status, usage = os.wait3(0)
        job = by_pid.pop(pid)
        job.minutes = round((time.perf_counter() - begin) / 60, 2)
        job.cpu_minutes = round((usage.ru_utime + usage.ru_stime) / 60, 2)
        print(f"{job.side}, seed {job.seed}: {job.minutes} minutes, {job.cpu_minutes} of a core", flush=True)
        if status:
            for other in by_pid.values():
                assert other.process is not None
                other.process.kill()
            raise RuntimeError(f"{job.side}, seed {job.seed} failed: see {job.folder}.log")


def judge_all(jobs: list[Job], given: argparse.Namespace) -> list[dict[str, object]]:
    """Draw from every result and measure: a row a run, in the order of `jobs`."""
    rows = []
    for job in jobs:
        begin = time.perf_counter()
        images = draw(job.folder, given.num_samples, given.num_inference_steps)
        seconds = round(time.perf_counter() - begin, 1)
        np.save(f"{job.folder}-samples.npy", images.numpy())
        row = {
            "side": job.side, "seed": job.seed, "minutes": job.minutes, "cpu_minutes": job.cpu_minutes,
            "images_seen": images_seen(job, given), **measure(images, given.splits), "sampling_seconds": seconds,
        }  # fmt: skip
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def images_seen(job: Job, given: argparse.Namespace) -> int:
    if job.side == OURS:
        return given.num_images_seen
    return given.num_epochs * len(list((given.splits / "train").glob("*.png")))


def conditions(given: argparse.Namespace) -> dict[str, object]:
    """What the numbers were measured with, and the judge's own scale."""
    judge, reference, training = parts(given.splits)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip() or "n/a",
        "versions": {m.__name__: m.__version__ for m in (torch, diffusers, accelerate)},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread a run",
        "config": given.config.read_text(),
        "seeds_at_once": given.seeds_at_once,
        "sampler": f"DPM-Solver++, {given.num_inference_steps} steps, x_0 clipped where the folder says so, bfloat16 autocast",
        "side": _side_of(given.splits),
        "num_training_images": len(training),
        "num_reference_images": len(reference),
        "floor": floor(given.splits, given.num_samples),
        "degraded reals": degradation_table(judge, training[:1000], reference),
    }


def write_sheet(splits: Path, work: Path, path: Path, columns: int = 16) -> None:
    """Two rows each of reference reals, and of the first samples of every side of the lowest seed."""
    groups = [read_images(splits / "reference")[: 2 * columns]]
    for side in (OURS, SHIPPED, WARM):
        found = sorted(work.glob(f"{side.replace(' ', '-')}-seed-*-samples.npy"))
        groups += [np.load(found[0])[: 2 * columns]] if found else []
    rows = []
    for group in groups:
        images = group.transpose(0, 2, 3, 1)  # (N, S, S, 3)
        rows += [np.concatenate(images[i : i + columns], axis=1) for i in range(0, len(images), columns)]
        rows.append(np.full((8, rows[-1].shape[1], 3), 128, np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows[:-1])).save(path, optimize=True)


def _side_of(splits: Path) -> int:
    return Image.open(next((splits / "train").glob("*.png"))).width


def _is_fair(jobs: list[Job]) -> bool:
    ours = {job.seed: job.minutes for job in jobs if job.side == OURS}
    return all(job.minutes >= ours[job.seed] for job in jobs)


if __name__ == "__main__":
    main()
