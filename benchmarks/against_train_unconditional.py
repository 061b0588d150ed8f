"""Same pictures, same minutes, same judge: our recommended config against diffusers' train_unconditional.py.

    python -m benchmarks.colour_set PICTURES SPLITS --side 32
    python -m benchmarks.against_train_unconditional SPLITS --script train_unconditional.py \\
        --work WORK --out RECORD.json --num_images_seen 48000

All processes start at the same moment, with one thread each, and share the same cores, so that other load on the
machine meets all of them; beside its minutes, each has its processor time in the record. Theirs is the script as it
ships but for the picture size, the folders, the seed, and a checkpoint every `--checkpointing_steps` instead of 500.
Its 100 epochs are far more than the time there is: it is stopped at its first checkpoint after our run of the same
seed has ended, so it never has fewer minutes than ours. A second row gives it a warm-up of 50 steps instead of 500.
Ours is as long as `--num_images_seen` says. Then every result is drawn from and judged by `colour_quality.py`; WORK
keeps the runs, and a second call with the same WORK only judges.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import accelerate
import diffusers
import numpy as np
import torch
from diffusers import DDPMScheduler
from PIL import Image

from benchmarks.colour_judge import degradation_table
from benchmarks.colour_quality import IN_BFLOAT16, draw, floor, measure, parts
from benchmarks.colour_set import read_images
from fastddpm.process import device_name

ROOT = Path(__file__).resolve().parents[1]
OURS, SHIPPED, WARM = "ours", "as shipped", "warm-up of 50 steps"


@dataclass
class Job:
    """One training process."""

    side: str
    seed: int
    folder: Path
    command: list[str]
    minutes: float = 0.0
    cpu_minutes: float = 0.0
    images_seen: int = 0

    def start(self) -> subprocess.Popen:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
        env["PYTHONPATH"] = str(ROOT)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{self.folder}.log", "w") as log:
            return subprocess.Popen(self.command, cwd=ROOT, env=env, stdout=log, stderr=log)

    def newest_checkpoint(self) -> tuple[int, Path] | None:
        """The last whole checkpoint of their script and its step; its random states are what it writes last."""
        found = [path.parent for path in self.folder.glob("checkpoint-*/random_states_0.pkl")]
        return max(((int(path.name.split("-")[1]), path) for path in found), default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splits", type=Path, help="made by colour_set.py")
    parser.add_argument("--script", type=Path, required=True, help="train_unconditional.py, unchanged")
    parser.add_argument("--work", type=Path, required=True, help="a new folder for runs and samples")
    parser.add_argument("--out", type=Path, required=True, help="the record")
    parser.add_argument("--sheet", type=Path, help="a PNG with reals and samples of the first seed")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "recommended-32.yaml")
    parser.add_argument("--num_images_seen", type=int, required=True, help="length of our runs")
    parser.add_argument("--checkpointing_steps", type=int, default=10, help="of theirs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--warm_seeds", type=int, nargs="*", default=[0, 1], help="seeds of the row with a warm-up")
    parser.add_argument("--num_samples", type=int, default=500)
    parser.add_argument("--num_inference_steps", type=int, default=12)
    given = parser.parse_args()
    given.splits, given.work = given.splits.resolve(), given.work.resolve()  # the runs start in another folder
    jobs = all_jobs(given)
    if not (given.work / "runs.json").exists():
        given.work.mkdir(parents=True)
        run_together(jobs, given.num_images_seen)
        facts = {job.folder.name: [job.minutes, job.cpu_minutes, job.images_seen] for job in jobs}
        (given.work / "runs.json").write_text(json.dumps(facts))
    for job in jobs:
        facts = json.loads((given.work / "runs.json").read_text())
        job.minutes, job.cpu_minutes, job.images_seen = facts[job.folder.name]
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
        "out": folder, "seed": seed, "data.source": given.splits / "train", "data.num_held_out": 0,
        "data.cache_dir": given.work / "cache", "train.num_images_seen": given.num_images_seen, "train.num_threads": 1,
        "train.evaluate_every": 0, "watch.preview_every_images": 0, "watch.nearest": "false", "sample.num_images": 16,
        "sample.num_inference_steps": 1,
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "fastddpm", "train", "--config", str(given.config.resolve()), *words]


def their_command(given: argparse.Namespace, folder: Path, seed: int, side: str) -> list[str]:
    settings = {
        "train_data_dir": given.splits / "train", "output_dir": folder,
        "resolution": _side_of(given.splits), "checkpointing_steps": given.checkpointing_steps,
        "checkpoints_total_limit": 1, "ddpm_num_inference_steps": 1,
        "cache_dir": f"{folder}-cache",
    }  # fmt: skip
    if side == WARM:
        settings["lr_warmup_steps"] = 50
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "benchmarks.seeded", str(seed), str(given.script.resolve()), *words]


def run_together(jobs: list[Job], num_images_seen: int) -> None:
    """Start all at once, wait for ours, and stop each of theirs at its next checkpoint.

    Raises: RuntimeError: a process ended before its time or failed; its log is named.
    """
    begin = time.perf_counter()
    running = {(job.side, job.seed): (job, job.start()) for job in jobs}
    steps_then: dict[int, dict[str, int]] = {}  # seed -> side -> checkpoint at the moment when our run ended
    try:
        while running:
            time.sleep(1)
            for key, (job, process) in list(running.items()):
                if _is_due(job, process, steps_then):
                    _note(job, process, (time.perf_counter() - begin) / 60, num_images_seen)
                    del running[key]
                    if job.side == OURS:
                        steps_then[job.seed] = {
                            other.side: (other.newest_checkpoint() or (0,))[0] for other in jobs if other.side != OURS
                        }
    finally:
        for _, process in running.values():
            process.kill()


def _is_due(job: Job, process: subprocess.Popen, steps_then: dict[int, dict[str, int]]) -> bool:
    if job.side == OURS:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
        raise RuntimeError(f"{job.side}, seed {job.seed} ended before its time: see {job.folder}.log")
    newest = job.newest_checkpoint()
    return job.seed in steps_then and newest is not None and newest[0] > steps_then[job.seed][job.side]


def _note(job: Job, process: subprocess.Popen, minutes: float, num_images_seen: int) -> None:
    """End a process and keep what it did and took; of theirs, also the scheduler as the script makes it."""
    if job.side != OURS:
        process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    if job.side == OURS and status:
        raise RuntimeError(f"{job.side}, seed {job.seed} failed: see {job.folder}.log")
    job.minutes, job.cpu_minutes = round(minutes, 2), round((usage.ru_utime + usage.ru_stime) / 60, 2)
    job.images_seen = num_images_seen
    newest = job.newest_checkpoint()
    if newest is not None:
        job.images_seen = newest[0] * 16  # its batch size
        os.replace(newest[1] / "unet", job.folder / "unet")
        DDPMScheduler(beta_schedule="linear", prediction_type="epsilon").save_pretrained(job.folder / "scheduler")
    print(f"{job.side}, seed {job.seed}: {job.minutes} minutes, {job.cpu_minutes} of a core", flush=True)


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
            "images_seen": job.images_seen, **measure(images, given.splits), "sampling_seconds": seconds,
        }  # fmt: skip
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


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
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} core(s) for all runs together, one thread a run",
        "config": given.config.read_text(),
        "sampler": f"DPM-Solver++, {given.num_inference_steps} steps, x_0 clipped where the folder says so, "
        f"{'bfloat16' if IN_BFLOAT16 else 'float32'}",
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
    shown = min(len(group) for group in groups) // columns * columns
    rows = []
    for group in groups:
        images = group[:shown].transpose(0, 2, 3, 1)  # (N, S, S, 3)
        rows += [np.concatenate(images[i : i + columns], axis=1) for i in range(0, len(images), columns)]
        rows.append(np.full((8, rows[-1].shape[1], 3), 128, np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows[:-1])).save(path, optimize=True)


def _processor() -> str:
    return device_name(torch.device("cpu")).partition(",")[0]


def _side_of(splits: Path) -> int:
    return Image.open(next((splits / "train").glob("*.png"))).width


def _is_fair(jobs: list[Job]) -> bool:
    ours = {job.seed: job.minutes for job in jobs if job.side == OURS}
    return all(job.minutes >= ours[job.seed] for job in jobs)


if __name__ == "__main__":
    main()
