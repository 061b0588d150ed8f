"""Do start-up and time a step grow with the number of images?

    python -m benchmarks.data_scale FOLDER --num_images 1000 10000 100000 1000000 --out record.json

For each size: random images of 32x32x3 are written as one .npy in FOLDER and read in; then, in a fresh process, the
time to open them (`load_splits` and `DeviceImages`), and the time of a training step of a network like the quickstart's
on batches of 64 that are read from the map, never from memory. Sizes take turns over several rounds; medians and ranges
are recorded.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import conditions

SHAPE = (32, 32, 3)
STEPS, WARM_UP = 30, 5

CHILD = """
import json, sys, time
import torch
from fastddpm.config import DataConfig
from fastddpm.data import Batches, DeviceImages, load_splits
from fastddpm.models.paper_unet import PaperUNet2DModel
from fastddpm.training.loss import Objective
from fastddpm.config import TrainConfig
from fastddpm.schedulers.fused_ddpm import FusedDDPMScheduler

source, cache_dir, steps, warm_up = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
start = time.perf_counter()
splits = load_splits(DataConfig(source=source, cache_dir=cache_dir, num_held_out=512), seed=0, show_progress=False)
images = DeviceImages(splits.train, torch.device("cpu"), resident_bytes=0)
opened = time.perf_counter() - start
unet = PaperUNet2DModel(32, 3, 3, (64, 128), norm_type="group", norm_num_groups=8, block_type="residual", patch_size=2)
unet.to(memory_format=torch.channels_last)
objective = Objective(FusedDDPMScheduler(), TrainConfig(), None, 0)
optimizer = torch.optim.AdamW(unet.parameters(), fused=True)
batches = Batches(images, lambda step: [torch.arange(step * 64, step * 64 + 64)], seed=0, last_step=steps)
seconds = []
for step in range(steps):
    if step == warm_up:
        batches.waited_seconds = 0.0
    begin = time.perf_counter()
    ((positions, pixels, labels),) = batches.of_step(step)
    loss = objective.training(unet, pixels, labels, positions)[0].mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    seconds.append(time.perf_counter() - begin)
batches.close()
timed = seconds[warm_up:]
print(json.dumps({
    "open_seconds": opened,
    "step_ms": 1000 * sorted(timed)[len(timed) // 2],
    "data_wait_share": batches.waited_seconds / sum(timed),
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="needs 6 KiB an image")
    parser.add_argument("--num_images", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    sources = {count: write_images(given.folder, count) for count in given.num_images}
    reading_in = {count: read_in(source, given.folder) for count, source in sources.items()}
    rounds = [{count: measure(s, given.folder) for count, s in sources.items()} for _ in range(given.rounds)]
    rows = [
        {"num_images": count, "read_in_seconds": reading_in[count]} | {
            name: spread([found[count][name] for found in rounds]) for name in rounds[0][count]
        }
        for count in sources
    ]  # fmt: skip
    record = {**conditions(), "cores used": len(os.sched_getaffinity(0)), "image_shape": SHAPE, "rows": rows}
    given.out.write_text(json.dumps(record, indent=1) + "\n")
    for row in rows:
        print(json.dumps(row))


def write_images(folder: Path, count: int) -> Path:
    """One .npy of random images, written part by part."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"random-{count}.npy"
    if not path.exists():
        images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, *SHAPE))
        rng = np.random.default_rng(count)
        for first in range(0, count, 50_000):
            part = images[first : first + 50_000]
            part[:] = rng.integers(0, 256, part.shape, dtype=np.uint8)
    return path


def read_in(source: Path, folder: Path) -> float:
    """Seconds to store the images of a source for the first time."""
    from fastddpm.config import DataConfig
    from fastddpm.data import ingest

    shutil.rmtree(cache := folder / f"cache-{source.stem}", ignore_errors=True)
    start = time.perf_counter()
    ingest(DataConfig(source=str(source), cache_dir=str(cache)))
    return round(time.perf_counter() - start, 2)


def measure(source: Path, folder: Path) -> dict[str, float]:
    """Opening and stepping, in a fresh process."""
    words = [sys.executable, "-c", CHILD, str(source), str(folder / f"cache-{source.stem}"), str(STEPS), str(WARM_UP)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {name: round(f(values), 4) for name, f in (("median", statistics.median), ("min", min), ("max", max))}


if __name__ == "__main__":
    main()
