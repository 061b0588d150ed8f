"""The one rule for copies, of a run's own pages, `evaluate`, `augment` and `reproduce`: which training images samples
are compared with, mirrored where training mirrored them, and which real images say how near is ordinary.

`measures.nearest` has the statistics: when samples are called copies.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastddpm import draws, report
from fastddpm.config import RunConfig
from fastddpm.data import DeviceImages, center_crop, splits_of_run
from fastddpm.draws import Stream
from fastddpm.measures.nearest import CHUNK, MAX_REALS, MIN_COMPARED, NEIGHBOURS, TrainingImages, Verdict

MAX_TRAINING = 50_000
"""Training images compared with; of more, a part drawn at random. Every one of them is compared with every sample, and
the commands hold them in memory: 2.5 GB in colour at 128 x 128."""
MAX_PAIRS = 24
"""Samples shown above their nearest training images, the closest first: a picture that fits a page."""


@dataclass(frozen=True, eq=False)
class Originals:
    """The images that samples may be copies of."""

    gather: Callable[[Tensor], Tensor]
    """(B,) int64 ids -> (B, C, H, W) uint8, as training sees them but for mirrors: of larger ones, the middle"""
    ids: Tensor
    """(N,), int64: those that are compared"""
    reals: Tensor | None
    """(M, C, H, W), uint8: images that were not trained on; None: training images stand in for them"""
    flips: tuple[int, ...] | None
    """axes of (C, H, W) that training mirrors, -1 and -2; None: that is not known"""
    facts: dict[str, Any]
    """plain JSON values: source, how many of how many"""
    label_names: tuple[str, ...] | None = None

    @classmethod
    def of_run(cls, config: RunConfig, train: DeviceImages, held_out: DeviceImages | None) -> "Originals":
        """Originals of a run: its training images, its mirrors, and its held-out images as reals."""

        def gather(ids: Tensor, images: DeviceImages = train) -> Tensor:
            return center_crop(images.gather(ids)[0], config.train.random_crop)

        ids, flips = some_ids(len(train), MAX_TRAINING, config.seed), config.train
        facts = {
            "source": config.data.source, "run": Path(config.output_dir).name, "split": "train",
            "num_images": len(ids), "of": len(train), "seed": config.seed if len(ids) < len(train) else None,
        }  # fmt: skip
        return cls(
            gather, ids,
            None if held_out is None else gather(some_ids(len(held_out), MAX_REALS, config.seed), held_out),
            tuple(axis for axis, on in ((-1, flips.horizontal_flip), (-2, flips.vertical_flip)) if on),
            facts, train.subset.source.label_names,
        )  # fmt: skip

    @classmethod
    def of_folder(cls, run: Path, image_shape: tuple[int, int, int], device: torch.device) -> "Originals":
        """Originals of a run's folder: the same images, held in memory.

        Raises: ValueError, OSError: no run, or its images are gone, or of another shape.
        """
        config, splits = splits_of_run(run)
        cpu = torch.device("cpu")
        held_out = DeviceImages(splits.held_out, cpu, resident_bytes=0) if len(splits.held_out) else None
        found = cls.of_run(config, DeviceImages(splits.train, cpu, resident_bytes=0), held_out)
        if found.pixels.shape[1:] != image_shape:
            raise ValueError(
                f"{run} was trained on images of {found.pixels.shape[1:]} (channels, height, width), the others are "
                f"{image_shape}; give images of one shape"
            )
        return replace(found.held(found.pixels, device), facts={**found.facts, "run": run.name})

    @classmethod
    def of_images(
        cls,
        pixels: np.ndarray,
        reals: np.ndarray | None,
        device: torch.device,
        *,
        facts: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> "Originals":
        """Originals without a run: images, (N, C, H, W) uint8, of which it is not known how they were trained on.

        Args:
            reals: (M, C, H, W), uint8, of which some are drawn by the seed; None: the images stand in.
        """
        some = None if reals is None else torch.from_numpy(reals[some_ids(len(reals), MAX_REALS, seed).numpy()])
        return cls(torch.from_numpy, torch.arange(0), some, None, facts or {}).held(pixels, device)

    def held(self, pixels: np.ndarray, device: torch.device) -> "Originals":
        """The same with other images, (N, C, H, W) uint8, which stay in memory and are moved to the device in parts."""
        everything = torch.from_numpy(pixels)
        reals = None if self.reals is None else self.reals.to(device)
        ids = torch.arange(len(pixels))
        made = replace(self, gather=lambda ids: everything[ids].to(device), ids=ids, reals=reals)
        vars(made)["pixels"] = pixels  # the property would copy them
        return made

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """(N, C, H, W), uint8: the images that are compared."""
        return torch.cat([self.gather(part).cpu() for part in self.ids.split(CHUNK)]).numpy()

    @functools.cached_property
    def compared(self) -> TrainingImages:
        """Images that tell copies. Where all reals are among the images, the images themselves stand in for them."""
        flips = self.flips or ()
        found = TrainingImages(self.gather, self.ids, self.reals, flips=flips)
        if found.threshold is None and self.reals is not None:
            return TrainingImages(self.gather, self.ids, None, flips=flips)
        return found

    def judge(self, samples: np.ndarray) -> Verdict:
        """Compare samples, (N, C, H, W) uint8, N >= 1, where the reals are, or the images."""
        return self.compared.judge(torch.from_numpy(samples).to(self.gather(self.ids[:1]).device))

    def row(self, verdict: Verdict) -> dict[str, Any]:
        """Record of a comparison: plain JSON values."""
        return {
            "verdict": verdict.kind,
            "num_close": verdict.num_close,
            "num_samples": len(verdict.samples.ids),
            "chance": verdict.chance,
            "num_compared": len(self.compared),
            "num_reals": verdict.num_reals,
            "reals": self.compared.reals,
            "unlike": verdict.unlike,
            "median_distance": float(verdict.samples.distances.median()),
            "median_distance_of_reals": self.compared.real_distance,
        }

    @property
    def mirrored(self) -> list[str] | None:
        """Mirrors of training images that were compared with, for a record; None: it is not known how training did."""
        return None if self.flips is None else [{-1: "horizontal", -2: "vertical"}[axis] for axis in self.flips]

    def save_pairs(self, samples: np.ndarray, verdict: Verdict, path: Path) -> None:
        """Draw samples above their nearest training images, the closest first."""
        order = verdict.samples.closeness.argsort()[:MAX_PAIRS]
        nearest = self.gather(verdict.samples.ids[order]).cpu().numpy()
        notes = [f"{distance:.0f} levels" for distance in verdict.samples.distances[order].tolist()]
        usual = self.compared.real_distance
        title = "Each sample above the training image that is nearest to it, and their distance in grey levels of 255."
        title += "" if usual is None else f" Of a real image and the one nearest to it: {usual:.0f} (median)."
        report.save_pairs(list(zip(samples[order.numpy()], nearest, notes, strict=True)), path, title=title)


def some_ids(of: int, most: int, seed: int) -> Tensor:
    """`most` different places of a set of `of` images, or all, in random order; the same each time: int64."""
    return draws.shuffled(torch.arange(min(of, most)), of, seed=seed, epoch=0, stream=Stream.CHOICE)


def in_words(row: dict[str, Any], num_images: int) -> str:
    """A run's row of a comparison as a sentence or two.

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
    missed = (
        ""
        if row.get("nearest_crop") is None
        else " Training images were compared by their middle only: copies of other random crops are not found."
    )
    if row.get("nearest_augmented"):
        missed += (
            " Training images were compared as they are stored: copies of what data.augment made of them are not found."
        )
    if row["nearest_verdict"] == "copies":
        return (
            f"Samples look like copies of training images: {seen}. The model memorizes: look at nearest.png, and train "
            "on more images, for fewer images seen (train.num_images_seen), or with more augmentation "
            f"(data.augment, train.horizontal_flip, train.random_crop).{missed}"
        )
    return f"No sign of copied training images: {seen}; by chance it would be one in 20.{missed}"


def _why_not(row: dict[str, Any]) -> str:
    """Reason for no verdict: what is too few, and what would be enough."""
    if row["nearest_num_compared"] < MIN_COMPARED:
        return (
            f"there are {row['nearest_num_compared']} different ones, and a model of so few can do little but repeat "
            "them"
        )
    reals = "held-out images" if row["nearest_reals"] == "held_out" else "training images"
    if row.get("nearest_unlike"):
        return f"the samples are not like the images yet, since half of them are {row['nearest_unlike']} " + (
            f"than 95 % of {row['nearest_num_reals']} {reals} are"
        )
    return (
        f"{row['nearest_num_samples']} samples and {row['nearest_num_reals']} {reals} to compare them with are too few "
        "to say it with confidence; give a larger sample.num_images, or data.num_held_out"
    )
