"""Detectors of a rare digit of which few examples are known, with and without images made from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.anomalies import runs
from benchmarks.anomalies.measure import kept, write
from benchmarks.anomalies.sets import NUM_DIGITS, Parts, Sizes, rare_set
from fastddpm import CutMixPipeline, VariationPipeline
from fastddpm.data import to_unit_range
from fastddpm.measures.auroc import detection
from fastddpm.measures.judge import seeded
from fastddpm.verbs.sample.open_model import open_pipeline

STARTS = (200, 300)
"""timesteps that made images start from"""
SOLVER_STEPS = 10
TURN, SHIFT = 15.0, 2.0
"""of the classic way: degrees and pixels, at most"""
ALONE = "the rare ones alone"
ARMS: Mapping[str, tuple[tuple[str, ...], bool]] = {
    ALONE: ((), False),
    "+ shifts and turns": ((), True),
    "+ variations": (("variations",), False),
    "+ blends": (("blends",), False),
    "+ variations and blends": (("variations", "blends"), False),
    "+ shifts and turns, variations and blends": (("variations", "blends"), True),
}
"""name -> made images that are added, and whether all images are shifted and turned"""


@dataclass(frozen=True, eq=False)
class Positives:
    """Images of the rare kind, each with how rare it is."""

    images: Tensor
    """(N, 1, H, W), float32, in [-1, 1]"""
    targets: Tensor
    """(N,), float32: 1, or the rare digit's share of a blend's pixels"""


def rare(parts: Sequence[Parts], work: Path, sizes: Sizes) -> None:
    """Measure every digit and number of examples whose generator is finished."""
    for digit in runs.RARE_DIGITS:
        for count in runs.RARE_COUNTS:
            task = runs.with_rare(digit, count, sizes)
            run, path = runs.folder_of(task, work), kept(work, "rare", task.name)
            if path.exists() or not runs.is_finished(run):
                continue
            normals, known = (torch.from_numpy(x) for x in rare_set(list(parts), digit, count, sizes))
            made = made_from(run, known, normals, sizes)
            test = held_out(parts, digit, sizes)
            arms = {name: of_arm(name, normals, known, made, test, sizes) for name in ARMS}
            counts = {kind: len(found.images) for kind, found in made.items()}
            write(path, {"digit": digit, "count": count, "made": counts, "arms": arms})


def of_arm(
    name: str, normals: Tensor, known: Tensor, made: Mapping[str, Positives], test: tuple[Tensor, Tensor], sizes: Sizes
) -> list[float]:
    """AUROC of detectors trained in one way, a seed each."""
    kinds, moves = ARMS[name]
    added = [made[kind] for kind in kinds]
    seeds = range(sizes.rare_seeds)
    return [auroc(train_detector(normals, known, added, moves, seed, sizes), *test) for seed in seeds]


def held_out(parts: Sequence[Parts], digit: int, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """As many unseen images of each digit, ten times as many of the rare one, and which those are."""
    each = sizes.rare_tests
    chosen = [part.test[: each * (NUM_DIGITS - 1) if other == digit else each] for other, part in enumerate(parts)]
    truth = [np.full(len(images), other == digit) for other, images in enumerate(chosen)]
    return torch.from_numpy(np.concatenate(chosen)), torch.from_numpy(np.concatenate(truth))


def made_from(run: Path, known: Tensor, normals: Tensor, sizes: Sizes) -> dict[str, Positives]:
    """Variations of the rare images, and blends of normal ones with a part of a rare one.

    Args:
        known, normals: (k, 1, H, W), (N, 1, H, W), uint8.
    """
    vary, blend = (open_pipeline(kind, str(run), "dpmsolver++") for kind in (VariationPipeline, CutMixPipeline))
    for pipeline in (vary, blend):
        pipeline.set_progress_bar_config(disable=True)
    count = sizes.rare_made // len(STARTS)  # of each start
    partners = known[torch.arange(count) % len(known)]
    order = torch.from_numpy(np.random.default_rng(5).permutation(len(normals)))[torch.arange(count) % len(normals)]
    options: dict[str, Any] = {
        "start_timestep": STARTS, "num_inference_steps": sizes.rare_steps, "seeds": range(count * len(STARTS)),
        "micro_batch_size": 100, "output_type": "pt",
    }  # fmt: skip
    blended = blend(normals[order], partners, **options)
    return {
        "variations": _positives(vary(partners, **options).images, None),
        "blends": _positives(blended.images, blended.shares),
    }


def _positives(images: Tensor, targets: Sequence[float] | None) -> Positives:
    return Positives(images * 2 - 1, torch.ones(len(images)) if targets is None else torch.tensor(targets))


def train_detector(
    normals: Tensor, known: Tensor, made: Sequence[Positives], moves: bool, seed: int, sizes: Sizes
) -> nn.Module:
    """A small network that tells rare from normal; half of each batch is rare, and half of that made, if any is.

    Args:
        normals, known: (N, 1, H, W), (k, 1, H, W), uint8.
        moves: shift and turn every image.
    Returns: (B, 1, H, W) in [-1, 1] -> (B,) logits; in eval mode.
    """
    negatives, real = to_unit_range(normals), to_unit_range(known)
    half = sizes.rare_batch // 2
    with seeded(seed, "cpu"):
        network = detector_network((normals.shape[1], normals.shape[2], normals.shape[3]))
        optimizer = torch.optim.AdamW(network.parameters())
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=sizes.rare_detector_steps)
        for _ in range(sizes.rare_detector_steps):
            images, targets = [drawn(negatives, half)], [torch.zeros(half)]
            num_made = half // 2 if made else 0
            images.append(drawn(real, half - num_made))
            targets.append(torch.ones(half - num_made))
            for each in made:
                places = torch.randint(len(each.images), (num_made // len(made),))
                images.append(each.images[places])
                targets.append(each.targets[places])
            batch = torch.cat(images)
            logits = network(moved(batch) if moves else batch)[:, 0]
            loss = F.binary_cross_entropy_with_logits(logits, torch.cat(targets))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    return network.eval()


def detector_network(image_shape: tuple[int, int, int]) -> nn.Sequential:
    """(B, C, H, W) -> (B, 1)."""
    channels, height, width = image_shape
    layers: list[nn.Module] = []
    for c_in, c_out in ((channels, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(c_in, c_out, 3, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU()]
        height, width = -(-height // 2), -(-width // 2)
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Flatten(), nn.Linear(32 * height * width, 1))


def drawn(images: Tensor, count: int) -> Tensor:
    """Some of them, with repetition."""
    return images[torch.randint(len(images), (count,))]


def moved(images: Tensor) -> Tensor:
    """Each image turned by up to `TURN` degrees and shifted by up to `SHIFT` pixels, its edges repeated.

    Args:
        images: (B, C, H, W), float32, square.
    """
    angle = (torch.rand(len(images)) * 2 - 1) * TURN * torch.pi / 180
    shift = (torch.rand(len(images), 2) * 2 - 1) * SHIFT * 2 / images.shape[-1]  # in half sides
    rows = [torch.stack([angle.cos(), -angle.sin(), shift[:, 0]], 1)]
    rows.append(torch.stack([angle.sin(), angle.cos(), shift[:, 1]], 1))
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def auroc(network: nn.Module, images: Tensor, truth: Tensor) -> float:
    """Of its logits on unseen images, (N, 1, H, W), uint8."""
    logits = torch.cat([network(part)[:, 0] for part in to_unit_range(images).split(500)])
    return detection(logits, truth, resamples=0).image_auroc
