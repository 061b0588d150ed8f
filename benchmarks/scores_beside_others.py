"""Do others' scores say what ours say?  python -m benchmarks.scores_beside_others --out RECORD.json

Real digits against digits blurred by one pixel, in the same features, by ours and by torch-fidelity, clean-fid and
torchmetrics: as each computes by itself ("as it comes"), and with the same number of subsets ("same question"). A peer
that is not installed, or that fails, stands there with its error. SSIM is of each digit and its blurred self.
"""

import argparse
import json
import platform
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from fastddpm.data.named_pictures import named_images
from fastddpm.measures.fidelity import fid, kid, scores
from fastddpm.measures.similarity import ssim
from fastddpm.verbs.evaluate.train_judge import train_judge

PEERS = ("torch-fidelity", "clean-fid", "torchmetrics")
Score = Callable[[Tensor, Tensor], float]


class Given(nn.Module):
    """Features (B, D, 1, 1) as they are."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(1)


def of_torch_fidelity() -> dict[str, Score]:
    """Scores of torch-fidelity: KID by 100 subsets of 1,000 unless told otherwise."""
    frechet, kernel, shares = (import_module(f"torch_fidelity.metric_{name}") for name in ("fid", "kid", "prc"))

    def kid_by(subsets: int, size: int | None) -> Score:
        def found(a: Tensor, b: Tensor) -> float:
            options = {"kid_subsets": subsets, "kid_subset_size": size or len(a), "verbose": False}
            return float(kernel.kid_features_to_metric(a, b, **options)["kernel_inception_distance_mean"])

        return found

    def fid_of(a: Tensor, b: Tensor) -> float:
        one, other = (frechet.fid_features_to_statistics(of) for of in (a, b))
        return float(frechet.fid_statistics_to_metric(one, other, False)["frechet_inception_distance"])

    def share(name: str) -> Score:
        return lambda a, b: float(shares.prc_features_to_metric(a, b, verbose=False)[name])

    return {
        "FID": fid_of, "KID, as it comes": kid_by(100, 1000), "KID, same question": kid_by(1, None),
        "precision": share("precision"), "recall": share("recall"),
    }  # fmt: skip


def of_clean_fid() -> dict[str, Score]:
    """Scores of clean-fid: KID by 100 subsets of at most 1,000 unless told otherwise."""
    module = import_module("cleanfid.fid")

    def fid_of(a: Tensor, b: Tensor) -> float:
        (m, s), (n, t) = ((of.numpy().mean(0), np.cov(of.numpy(), rowvar=False)) for of in (a, b))
        return float(module.frechet_distance(m, s, n, t))

    def kid_by(**options: int) -> Score:
        return lambda a, b: float(module.kernel_distance(a.numpy(), b.numpy(), **options))

    return {"FID": fid_of, "KID, as it comes": kid_by(),
            "KID, same question": kid_by(num_subsets=1, max_subset_size=10**9)}  # fmt: skip


def of_torchmetrics() -> dict[str, Score]:
    """Scores of torchmetrics: KID by 100 subsets of 1,000 unless told otherwise."""
    image = import_module("torchmetrics.image")

    def measured(metric: Any, a: Tensor, b: Tensor) -> Any:
        for of, real in ((b, True), (a, False)):
            metric.update(of[:, :, None, None], real=real)
        return metric.compute()

    def kid_by(**options: Any) -> Score:
        def found(a: Tensor, b: Tensor) -> float:
            metric = image.KernelInceptionDistance(feature=Given(a.shape[1]), **(options or {"subset_size": 1000}))
            return float(measured(metric, a, b)[0])

        return found

    def fid_of(a: Tensor, b: Tensor) -> float:
        return float(measured(image.FrechetInceptionDistance(feature=Given(a.shape[1])), a, b))

    def all_at_once(a: Tensor, b: Tensor) -> float:
        return kid_by(subsets=1, subset_size=len(a))(a, b)

    return {"FID": fid_of, "KID, as it comes": kid_by(), "KID, same question": all_at_once}


def ssim_of_torchmetrics(a: Tensor, b: Tensor) -> float:
    """Mean SSIM of pairs, by torchmetrics."""
    structural = import_module("torchmetrics.functional.image").structural_similarity_index_measure
    return float(structural(a.double(), b.double(), data_range=255.0))


def ours() -> dict[str, Score]:
    """Our scores; the KID is over all pairs either way."""
    kernel: Score = lambda a, b: kid(a, b)[0]  # noqa: E731
    return {
        "FID": fid, "KID, as it comes": kernel, "KID, same question": kernel,
        "precision": lambda a, b: scores(a, b, resamples=0).precision,
        "recall": lambda a, b: scores(a, b, resamples=0).recall,
    }  # fmt: skip


def row(of: Callable[[], Mapping[str, Score]], samples: Tensor, reals: Tensor) -> dict[str, float | str]:
    """Scores by one side; of one that fails, the error."""
    found: dict[str, float | str] = {}
    try:
        for name, score in of().items():
            found[name] = score(samples, reals)
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
    return found


def main() -> None:
    """Write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num_images", type=int, default=2000)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    digits = named_images("digits", most=2 * asked.num_images, seed=0)
    pixels, count = digits.images, len(digits.images) // 2
    judge = train_judge(pixels, digits.labels, digits.label_names, 100, epochs=2, seed=0, device="cpu")
    blurred = ndimage.gaussian_filter(pixels[:count], 1.0, axes=(2, 3))
    features = [judge.features(torch.from_numpy(of)).float() for of in (blurred, pixels[count:])]
    sides = {"ours": ours, "torch-fidelity": of_torch_fidelity, "clean-fid": of_clean_fid,
             "torchmetrics": of_torchmetrics}  # fmt: skip
    twice = features[1].repeat(2, 1)
    pairs = torch.from_numpy(blurred), torch.from_numpy(pixels[:count])
    found = {
        "each real once": {name: row(of, *features) for name, of in sides.items()},
        "each real twice": {name: row(of, features[0], twice) for name, of in sides.items()},
        "SSIM": {"ours": float(ssim(*pairs).mean())}
        | {"torchmetrics": row(lambda: {"SSIM": ssim_of_torchmetrics}, *pairs)},
    }
    versions = {}
    for name in ("torch", "torchvision", "numpy", "scipy", *PEERS):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    facts = {"num_samples": count, "num_reals": len(features[1]), "num_features": features[0].shape[1]}
    record = {"scores": found, **facts, "versions": versions, "python": platform.python_version()}
    asked.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
