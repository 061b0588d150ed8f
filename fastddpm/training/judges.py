"""The judges of `evaluation` on a run: which real images they compare samples with, and what is written down."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastddpm import draws, report
from fastddpm.data import DeviceImages, center_crop
from fastddpm.draws import Stream
from fastddpm.measures.features import Features
from fastddpm.measures.kid import BATCH, KernelDistanceToReals
from fastddpm.measures.nearest import MIN_COMPARED, NEIGHBOURS, TrainingImages, Verdict
from fastddpm.training.run import Run

MAX_COMPARED = 50_000
"""training images that samples are compared with; of more, a part drawn at random"""
MAX_NEAREST_REALS = 256
MAX_KID_REALS = 10_000
MAX_PAIRS = 24


def some_ids(run: Run, images: DeviceImages, count: int) -> Tensor:
    """`count` different ids of a set, the same each time: (min(count, len(images)),), int64."""
    places = torch.arange(min(count, len(images)))
    return draws.shuffled(places, len(images), seed=run.config.seed, epoch=0, stream=Stream.CHOICE)


def as_trained(run: Run, images: DeviceImages, ids: Tensor) -> Tensor:
    """Images of a set as the network sees them, without flips: of larger ones, the crop from the middle."""
    return center_crop(images.gather(ids)[0], run.config.train.random_crop)


class KidJudge:
    """KID of samples; the reals are the held-out images if they are as many as the samples, else training images."""

    def __init__(self, run: Run, features: Features):
        self._features = features.to(run.accelerator.device)
        enough = run.held_out is not None and len(run.held_out) >= run.config.watch.kid_num_samples
        self._reals_are = "held_out" if enough else "training"
        reals = run.held_out if enough else run.images
        assert reals is not None
        ids = some_ids(run, reals, MAX_KID_REALS if enough else run.config.watch.kid_num_samples)
        batches = (as_trained(run, reals, part) for part in ids.split(BATCH))
        self._distance = KernelDistanceToReals(self._features, batches)

    def row(self, samples: np.ndarray) -> dict[str, Any]:
        """What metrics.jsonl holds of a measurement."""
        found = self._distance.measure(torch.from_numpy(samples))
        return {
            "kid": found.mean,
            "kid_std_of_subsets": found.std,
            "kid_num_samples": found.num_samples,
            "kid_num_reals": found.num_reals,
            "kid_reals": self._reals_are,
            "kid_subset_size": found.subset_size,
            "kid_features": self._features.name,
            "kid_features_sha256": self._features.sha256,
        }


class NearestJudge:
    """Looks for copies of training images; see `evaluation.nearest` for the rule."""

    def __init__(self, run: Run):
        self._run = run
        held_out, train = None, run.config.train
        if run.held_out is not None:
            held_out = as_trained(run, run.held_out, some_ids(run, run.held_out, MAX_NEAREST_REALS))
        self._training = TrainingImages(
            lambda ids: as_trained(run, run.images, ids),
            some_ids(run, run.images, MAX_COMPARED),
            held_out,
            flips=[axis for axis, on in ((-1, train.horizontal_flip), (-2, train.vertical_flip)) if on],
            max_reals=MAX_NEAREST_REALS,
        )

    def row(self, samples: np.ndarray) -> tuple[dict[str, Any], Verdict]:
        """What metrics.jsonl holds of a comparison; the verdict with its neighbours."""
        verdict = self._training.judge(torch.from_numpy(samples).to(self._run.accelerator.device))
        return {
            "nearest_verdict": verdict.kind,
            "nearest_num_close": verdict.num_close,
            "nearest_num_samples": len(samples),
            "nearest_chance": verdict.chance,
            "nearest_median_distance": float(verdict.samples.distances.median()),
            "nearest_median_closeness": float(verdict.samples.closeness.median()),
            "nearest_num_compared": len(self._training),
            "nearest_num_reals": verdict.num_reals,
            "nearest_reals": self._training.reals,
            "nearest_crop": self._run.config.train.random_crop,
        }, verdict

    def save_pairs(self, samples: np.ndarray, verdict: Verdict, path: Path) -> None:
        """Draw samples above their nearest training images, the closest first."""
        order = verdict.samples.closeness.argsort()[:MAX_PAIRS]
        nearest = as_trained(self._run, self._run.images, verdict.samples.ids[order]).cpu().numpy()
        notes = [f"{d:.0f} levels" for d in verdict.samples.distances[order].tolist()]
        report.save_pairs(list(zip(samples[order.numpy()], nearest, notes, strict=True)), path)


def in_words(row: dict[str, Any], num_images: int) -> str:
    """A row of `NearestJudge` as a sentence or two.

    Args:
        num_images: of the training set.
    """
    who = "held-out images" if row["nearest_reals"] == "held_out" else "training images to one another"
    compared = f"{row['nearest_num_compared']:,}" if num_images == row["nearest_num_compared"] else (
        f"{row['nearest_num_compared']:,} different ones of the {num_images:,}"
    )  # fmt: skip
    nearest = min(NEIGHBOURS, row["nearest_num_compared"] - 1)
    close, samples = row["nearest_num_close"], row["nearest_num_samples"]
    if row["nearest_verdict"] == "cannot tell":
        return f"Whether samples copy training images cannot be told: {_why_not(row)}; look at nearest.png."
    seen = (
        f"{close} of {samples} samples lie closer to one training image than 95 % of {row['nearest_num_reals']} "
        f"{who} do (the distance to the nearest of {compared} over the mean of the {nearest} nearest)"
    )
    crops = (
        ""
        if row.get("nearest_crop") is None
        else " Training images were compared by their middle only: copies of other random crops are not found."
    )
    if row["nearest_verdict"] == "copies":
        return (
            f"Samples look like copies of training images: {seen}. The model memorizes: look at nearest.png, and train "
            "on more images, for fewer images seen (train.num_images_seen), or with more augmentation "
            f"(train.horizontal_flip, train.random_crop).{crops}"
        )
    return f"No sign of copied training images: {seen}; by chance it would be one in 20.{crops}"


def _why_not(row: dict[str, Any]) -> str:
    """What is too few for a verdict, and what would be enough."""
    if row["nearest_num_compared"] < MIN_COMPARED:
        return (
            f"there are {row['nearest_num_compared']} different ones, and a model of so few can do little but repeat "
            "them"
        )
    reals = "held-out images" if row["nearest_reals"] == "held_out" else "training images"
    return (
        f"{row['nearest_num_samples']} samples and {row['nearest_num_reals']} {reals} to compare them with are too few "
        "to say it with confidence; give a larger sample.num_images, or data.num_held_out"
    )
