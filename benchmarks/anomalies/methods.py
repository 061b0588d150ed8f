"""Every detector of the comparison on the same images."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.anomalies.baselines import (
    Scored,
    autoencoder,
    by_rebuilding,
    count_of,
    nearest_in_features,
    nearest_in_pixels,
    nearest_patches,
    pca,
)
from benchmarks.anomalies.sets import Parts, Sizes
from fastddpm import AnomalyPipeline
from fastddpm.measures.calibration import START_TIMESTEPS
from fastddpm.measures.judge import Judge, seeded
from fastddpm.verbs.sample.open_model import open_pipeline

DECIDING = "ours"
STANDARDISED = ", standardised"
"""the score of `fastddpm detect`"""


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What all detectors say of the same images."""

    by_method: dict[str, Scored]
    facts: dict[str, int]
    """sizes of the detectors, plain JSON values"""


def verdicts(
    run: Path, judge: Judge, normal: Parts, images: Tensor, *, images_seen: int, seed: int, sizes: Sizes
) -> Verdicts:
    """Ask every detector.

    Args:
        run: of a model of the normal images.
        judge: trained on the normal training images, for the nearest neighbour in features.
        normal: the normal images; those of its test play no part.
        images: (N, C, H, W), uint8, the test.
        images_seen: by that model; the autoencoder sees as many.
        seed: of the autoencoder.
    """
    train = torch.from_numpy(normal.train)
    calibration = torch.from_numpy(normal.calibration[: sizes.calibration])
    known = train[torch.from_numpy(np.random.default_rng(6).permutation(len(train))[: sizes.known])]
    found, size = _ours(run, known, calibration, images)
    found["nearest patches, pixels"] = nearest_patches(images, known, calibration)
    found["nearest neighbour, pixels"] = nearest_in_pixels(images, train)
    found["nearest neighbour, features"] = nearest_in_features(images, train, judge)
    projection, components = pca(train, calibration)
    coder = autoencoder(train, num_parameters=size, images_seen=images_seen, seed=seed)
    for name, rebuild in (("PCA", projection), ("autoencoder", coder)):
        found[name], found[f"{name}{STANDARDISED}"] = by_rebuilding(rebuild, images, calibration)
    facts = {
        "parameters": size, "autoencoder's parameters": count_of(coder), "components of PCA": components,
        "forward passes": len(START_TIMESTEPS),
    }  # fmt: skip
    return Verdicts(found, facts)


def _ours(run: Path, known: Tensor, calibration: Tensor, images: Tensor) -> tuple[dict[str, Scored], int]:
    """With known images beside those of the calibration, without them, and of a network before any training."""
    pipeline: AnomalyPipeline = open_pipeline(AnomalyPipeline, str(run))
    pipeline.set_progress_bar_config(disable=True)
    blind = untrained(pipeline)
    found = {}
    for name, asked, beside in (
        (DECIDING, pipeline, known), (f"{DECIDING}, without known images", pipeline, None),
        (f"{DECIDING}, of an untrained network", blind, known),
    ):  # fmt: skip
        answer = asked(images, asked.calibrate(calibration, known_images=beside))
        found[name] = Scored(answer.scores, answer.maps)
    return found, count_of(pipeline.unet)


def untrained(pipeline: AnomalyPipeline) -> AnomalyPipeline:
    """The same network before any training, its weights drawn by seed 0."""
    with seeded(0, "cpu"):
        unet = type(pipeline.unet).from_config(pipeline.unet.config).eval()
    made = AnomalyPipeline(unet, pipeline.scheduler, pipeline.config.null_class)
    made.set_progress_bar_config(disable=True)
    return made


def part_of(scored: Scored, places: Tensor) -> Scored:
    """Of some of the images."""
    return replace(scored, scores=scored.scores[places], maps=None if scored.maps is None else scored.maps[places])
