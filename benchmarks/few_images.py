"""What models of few images draw: how good it is, and how much of it is copied.  python -m benchmarks.few_images GAIN

GAIN is the folder of a finished `fastddpm evaluate augmentation`. Its models of 50, 200, ... labelled images and of all
images draw `--num_samples` each (DPM-Solver++, 20 steps, each class in turn). FID, precision and recall are against
held-out images, in the features of a classifier that was trained on other held-out ones. "close" is the share of the
samples, or of the variations drawn for the measurement, that lie closer to a training image than 95 % of held-out
images do (`evaluation/nearest.py`): 0.05 is what real images get.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor
from tqdm import tqdm

from benchmarks.harness import parser, write_record
from fastddpm import FastDDPMPipeline
from fastddpm.config import load_config_of
from fastddpm.data import load_splits
from fastddpm.measures.features import load_judge
from fastddpm.measures.fidelity import floor, scores
from fastddpm.measures.judge import Judge
from fastddpm.studies.augmentation.generators import Kind, data_of, drawn_of, run_of, run_of_all
from fastddpm.studies.augmentation.settings import GainConfig
from fastddpm.studies.augmentation.subsets import Labelled, Set, choose_labelled, parts_of
from fastddpm.training.near_copies import MAX_TRAINING, Originals
from fastddpm.verbs.evaluate.train_judge import save_judge, train_judge

STEPS, CPU = 20, torch.device("cpu")


def main() -> None:
    asked = parser(__doc__, "few-images")
    asked.add_argument("gain", type=Path, help="the folder of an `evaluate augmentation`")
    asked.add_argument("--num_samples", type=int, default=500)
    asked.add_argument("--num_reals", type=int, default=2_000)
    asked.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="choices of labelled images")
    given = asked.parse_args()
    torch.set_num_threads(1)
    config = load_config_of(GainConfig, given.gain / "config.yaml", {"output_dir": str(given.gain)})
    pool, held_out = parts_of(load_splits(data_of(config), seed=config.seed), config.num_labelled)
    judge = _judge(given, held_out)
    reals = held_out.images[: given.num_reals]
    of_reals = judge.features(torch.from_numpy(reals))
    rows = [
        {"images": f"{size:,}", "seed": seed, **_measured(given, judge, of_reals, reals, images, run)}
        for size, seed, images, run in tqdm(list(_models(given, config, pool)), "models")
    ]
    variations = list(_variations(given, config, pool, reals))
    least = floor(of_reals, given.num_samples)
    write_record(
        given.out, "Models of few images", rows, num_samples=given.num_samples, steps=STEPS, variations=variations,
        floor={"FID": round(least.fid, 2), "precision": least.precision, "recall": least.recall},
        features=judge.description,
    )  # fmt: skip


def _models(
    given: argparse.Namespace, config: GainConfig, pool: Labelled
) -> Iterator[tuple[int, int, np.ndarray, str]]:
    """(number of training images, which choice, the images, the run) of each model."""
    for size in config.num_labelled:
        for seed in given.seeds:
            chosen = Set(size, seed)
            yield size, seed, _labelled(config, pool, chosen), run_of(config, chosen).output_dir
    of_all = run_of_all(config)
    if of_all is not None:
        yield len(pool.images), 0, pool.images[:MAX_TRAINING], of_all.output_dir


def _labelled(config: GainConfig, pool: Labelled, chosen: Set) -> np.ndarray:
    return pool.images[choose_labelled(pool.labels, chosen.size, seed=config.seed, repeat=chosen.repeat)]


def _measured(
    given: argparse.Namespace, judge: Judge, of_reals: Tensor, reals: np.ndarray, training: np.ndarray, run: str
) -> dict[str, Any]:
    pipeline = FastDDPMPipeline.from_pretrained(run)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.unet.to(memory_format=torch.channels_last)
    drawn = pipeline(
        seeds=range(given.num_samples), num_inference_steps=STEPS, micro_batch_size=100, output_type="pt"
    ).images
    samples = (drawn * 255).round().to(torch.uint8)
    found = scores(judge.features(samples), of_reals, resamples=0)
    verdict = Originals.of_images(training, reals, CPU).judge(samples.numpy())
    return {
        "FID": round(found.fid, 1), "precision": round(found.precision, 3), "recall": round(found.recall, 3),
        "close": round(verdict.num_close / len(samples), 3), "verdict": verdict.kind,
    }  # fmt: skip


def _variations(
    given: argparse.Namespace, config: GainConfig, pool: Labelled, reals: np.ndarray
) -> Iterator[dict[str, Any]]:
    """How many of the variations at each t are near-copies of the labelled images."""
    kinds: tuple[Kind, ...] = ("own",) if config.generator.of_all is None else ("own", "all")
    num = config.drawing.num_per_image
    for size in config.num_labelled:
        for kind in kinds:
            for start, _ in (point for point in config.drawing.points(size) if point[1] == num):
                shares = []
                for seed in given.seeds:
                    chosen = Set(size, seed)
                    drawn = drawn_of(config, chosen, kind, (start, num), 1 + int(pool.labels.max()))
                    originals = Originals.of_images(_labelled(config, pool, chosen), reals, CPU)
                    verdict = originals.judge(drawn.images.numpy())
                    shares.append(verdict.num_close / len(drawn.images))
                yield {"images": size, "model": kind, "t": start, "close": round(float(np.mean(shares)), 3)}


def _judge(given: argparse.Namespace, held_out: Labelled) -> Judge:
    """A classifier of held-out images that nothing else here uses; kept in the folder."""
    path = given.gain / "few-images-judge.safetensors"
    if not path.exists():
        others = slice(given.num_reals, None)
        count = len(held_out.labels) - given.num_reals
        names = [str(label) for label in range(1 + int(held_out.labels.max()))]
        made = train_judge(
            held_out.images[others], held_out.labels[others], names, count // 4, epochs=5, seed=0, device="cpu"
        )
        save_judge(made, path)
    return load_judge(path)


if __name__ == "__main__":
    main()
