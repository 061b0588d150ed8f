"""A judge of small colour pictures that no trainer knows: python -m benchmarks.colour_judge SPLITS

Features: the package's small network that learns without labels (`fastddpm/measures/unlabelled_judge.py`), trained on
SPLITS/judge, pictures that no model was trained on. The table this script prints, degraded reals against the reference,
is a test of it.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from benchmarks.colour_set import read_images
from fastddpm.measures.features import load_judge
from fastddpm.measures.unlabelled_judge import UnlabelledFeatures, train_unlabelled
from fastddpm.verbs.evaluate.train_judge import save_judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splits", type=Path, help="made by colour_set.py; the judge is kept there as judge.safetensors")
    parser.add_argument("--out", type=Path, help="where the record goes; default: printed only")
    given = parser.parse_args()
    judge, reference = judge_of(given.splits), torch.from_numpy(read_images(given.splits / "reference"))
    reals = torch.from_numpy(read_images(given.splits / "train")[:1000])
    text = json.dumps(degradation_table(judge, reals, reference), indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


def judge_of(splits: Path) -> UnlabelledFeatures:
    """The judge of some splits: trained at the first call, read from `splits`/judge.safetensors afterwards."""
    path = splits / "judge.safetensors"
    if not path.exists():
        save_judge(train_unlabelled(torch.from_numpy(read_images(splits / "judge"))), path)
    judge = load_judge(path)
    assert isinstance(judge, UnlabelledFeatures)
    return judge


@torch.no_grad()
def distances(judge: UnlabelledFeatures, images: Tensor, reference: Tensor) -> dict[str, float]:
    """FID and KID (mean of 100 subsets of up to 200 pictures) in the judge's features; both uint8, (N, 3, S, S)."""
    subset_size = min(200, len(images), len(reference))
    metrics = {
        "fid": FrechetInceptionDistance(feature=judge),
        "kid": KernelInceptionDistance(feature=judge, subsets=100, subset_size=subset_size),
    }
    found = {}
    for name, metric in metrics.items():
        torch.manual_seed(0)  # KID draws its subsets
        metric.update(reference, real=True)
        metric.update(images, real=False)
        value = metric.compute()
        found[name] = round(float(value[0] if isinstance(value, tuple) else value), 4)
    return found


def degradations() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """name -> degrades (N, H, W, 3) uint8 pictures; of each kind, the milder first."""
    return {
        "blur, sigma 0.5": lambda x: blurred(x, 0.5),
        "blur, sigma 1": lambda x: blurred(x, 1.0),
        "blur, sigma 2": lambda x: blurred(x, 2.0),
        "noise, sigma 10 of 255": lambda x: noisy(x, 10),
        "noise, sigma 30 of 255": lambda x: noisy(x, 30),
        "noise, sigma 80 of 255": lambda x: noisy(x, 80),
        "halves of two pictures": lambda x: mixed(x, x.shape[1] // 2, x.shape[2]),
        "quarters of four pictures": lambda x: mixed(x, x.shape[1] // 2, x.shape[2] // 2),
        "sixteenths of sixteen pictures": lambda x: mixed(x, x.shape[1] // 4, x.shape[2] // 4),
        "100 pictures, each repeated": lambda x: x[np.arange(len(x)) % 100],
        "10 pictures, each repeated": lambda x: x[np.arange(len(x)) % 10],
        "grey": lambda x: np.repeat(x.mean(-1, keepdims=True).round().astype(np.uint8), 3, axis=-1),
    }


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(sigma))) for x in images])


def noisy(images: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def mixed(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Every tile of `height` x `width` pixels from another picture, at its own place."""
    rng, result = np.random.default_rng(0), images.copy()
    for top in range(0, images.shape[1], height):
        for left in range(0, images.shape[2], width):
            tile = (slice(None), slice(top, top + height), slice(left, left + width))
            result[tile] = images[rng.permutation(len(images))][tile]
    return result


def degradation_table(judge: UnlabelledFeatures, reals: Tensor, reference: Tensor) -> dict[str, dict[str, float]]:
    """What the judge says of reals, plain and degraded, against the reference; all (N, 3, S, S) uint8."""
    pictures = reals.permute(0, 2, 3, 1).numpy()
    table = {"reals as they are": distances(judge, reals, reference)}
    for name, degrade in degradations().items():
        degraded = torch.from_numpy(degrade(pictures).transpose(0, 3, 1, 2).copy())
        table[name] = distances(judge, degraded, reference)
    return table


if __name__ == "__main__":
    main()
