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
from fastddpm.data import to_unit_range
from fastddpm.measures.calibration import Probe
from fastddpm.measures.judge import Judge, seeded
from fastddpm.verbs.detect.detect import SOLVER
from fastddpm.verbs.sample.open_model import open_pipeline

OURS = "ours: "
STANDARDISED = ", standardised"
DECIDING = f"{OURS}feature"
"""the score of `fastddpm detect`"""


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What all detectors say of the same images."""

    by_method: dict[str, Scored]
    reconstructions: Tensor
    """(N, S, C, H, W), float32, in [0, 1]: what the diffusion model makes of each image from S starts"""
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
    found, reconstructions, size = _ours(run, known, calibration, images, sizes.probe)
    found["nearest patches, pixels"] = nearest_patches(images, known, calibration)
    found["nearest neighbour, pixels"] = nearest_in_pixels(images, train)
    found["nearest neighbour, features"] = nearest_in_features(images, train, judge)
    projection, components = pca(train, calibration)
    coder = autoencoder(train, num_parameters=size, images_seen=images_seen, seed=seed)
    for name, rebuild in (("PCA", projection), ("autoencoder", coder)):
        found[name], found[f"{name}{STANDARDISED}"] = by_rebuilding(rebuild, images, calibration)
    passes = sizes.probe.num_noises * len(sizes.probe.start_timesteps)
    facts = {
        "parameters": size, "autoencoder's parameters": count_of(coder), "components of PCA": components,
        "forward passes, noise": passes,
        "forward passes, all": passes + sizes.probe.num_inference_steps * len(sizes.probe.reconstruct_from),
    }  # fmt: skip
    return Verdicts(found, reconstructions, facts)


def _ours(
    run: Path, known: Tensor, calibration: Tensor, images: Tensor, probe: Probe
) -> tuple[dict[str, Scored], Tensor, int]:
    """By each kind, by features of the calibration images alone, by all kinds together, and by plain errors."""
    pipeline: AnomalyPipeline = open_pipeline(AnomalyPipeline, str(run), SOLVER)
    pipeline.set_progress_bar_config(disable=True)
    answer = pipeline(images, pipeline.calibrate(calibration, probe, known_images=known), output_type="pt")
    found = {f"{OURS}{kind}": Scored(answer.kind_scores[kind], answer.kind_maps[kind]) for kind in probe.kinds}
    alone = replace(probe, kinds=("feature",))
    few = pipeline(images, pipeline.calibrate(calibration, alone))
    found[f"{DECIDING}, without known images"] = Scored(few.scores, few.maps)
    blind = untrained(pipeline)
    control = blind(images, blind.calibrate(calibration, alone, known_images=known))
    found[f"{DECIDING}, of an untrained network"] = Scored(control.scores, control.maps)
    scores, maps = (torch.stack(list(of.values())).mean(0) for of in (answer.kind_scores, answer.kind_maps))
    found[f"{OURS}mean of the three"] = Scored(scores, maps)
    drawn = answer.reconstructions.reshape(len(images), len(probe.reconstruct_from), *images.shape[1:])
    squares = (drawn * 2 - 1 - to_unit_range(images)[:, None]).square().mean(dim=(1, 2))  # (N, H, W)
    found[f"{OURS}pixel, plain"] = Scored(squares.mean(dim=(1, 2)), squares)  # as the baselines' errors are
    return found, drawn, count_of(pipeline.unet)


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
