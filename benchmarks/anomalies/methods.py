"""Every detector of the comparison on the same images."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.anomalies.baselines import (
    Scored,
    autoencoder,
    by_rebuilding,
    count_of,
    nearest_in_features,
    nearest_in_pixels,
    pca,
)
from benchmarks.anomalies.sets import Parts, Sizes
from fastddpm import AnomalyPipeline
from fastddpm.data import to_unit_range
from fastddpm.evaluation.calibration import Probe
from fastddpm.evaluation.judge import Judge
from fastddpm.sampling.opening import open_pipeline

OURS = "ours: "
STANDARDISED = ", standardised"
TOGETHER = f"{OURS}noise, pixel, feature"


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
        judge: trained on the normal training images.
        normal: the normal images; those of its test play no part.
        images: (N, C, H, W), uint8, the test.
        images_seen: by that model; the autoencoder sees as many.
        seed: of the autoencoder.
    """
    train = torch.from_numpy(normal.train)
    calibration = torch.from_numpy(normal.calibration[: sizes.calibration])
    found, reconstructions, size = _ours(run, judge, calibration, images, sizes.probe)
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
    run: Path, judge: Judge, calibration: Tensor, images: Tensor, probe: Probe
) -> tuple[dict[str, Scored], Tensor, int]:
    """By each kind of error, by the two that need no judge, and by all."""
    pipeline: AnomalyPipeline = open_pipeline(AnomalyPipeline, str(run), "dpmsolver++")  # as `fastddpm detect` does
    pipeline.set_progress_bar_config(disable=True)
    learned = pipeline.calibrate(calibration, probe, features=judge)
    answer = pipeline(images, learned, features=judge, output_type="pt")
    kinds = {kind: Scored(answer.kind_scores[kind], answer.kind_maps[kind]) for kind in probe.kinds}
    found = {f"{OURS}{kind}": scored for kind, scored in kinds.items()}
    found[f"{OURS}noise, pixel"] = Scored(
        (kinds["noise"].scores + kinds["pixel"].scores) / 2, (_known(kinds["noise"]) + _known(kinds["pixel"])) / 2
    )
    found[TOGETHER] = Scored(answer.scores, answer.maps)
    drawn = answer.reconstructions.reshape(len(images), len(probe.reconstruct_from), *images.shape[1:])
    squares = (drawn * 2 - 1 - to_unit_range(images)[:, None]).square().mean(dim=(1, 2))  # (N, H, W)
    found[f"{OURS}pixel, plain"] = Scored(squares.mean(dim=(1, 2)), squares)  # as the baselines' errors are
    return found, drawn, count_of(pipeline.unet)


def _known(scored: Scored) -> Tensor:
    assert scored.maps is not None
    return scored.maps


def part_of(scored: Scored, places: Tensor) -> Scored:
    """Of some of the images."""
    return replace(scored, scores=scored.scores[places], maps=None if scored.maps is None else scored.maps[places])
