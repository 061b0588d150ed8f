"""Normal images as a model sees them, so that others can be told from them, and thresholds that normal ones seldom
pass."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from fastddpm.config.checks import MIN_NORMAL
from fastddpm.measures.conformal import num_allowed, p_values, threshold
from fastddpm.measures.neighbours import Bank, Levels, Projection, by_place

START_TIMESTEPS = (50, 300)
"""timesteps, of 1,000, at which images are looked at: small defects show at the first, large ones at the second
(docs/log.md)"""
TOP_SHARE = 0.03
"""share of an image's pixels, the most anomalous ones, whose mean is its score: a small defect counts, one pixel does
not"""
_FORMAT, _VERSION = "anomaly_calibration", 2
MAX_ASKED = 100_000
"""timesteps and pixels a side that a file may ask for"""


@dataclass(frozen=True, eq=False)
class Judged:
    """Judgement of N images by a calibration."""

    scores: Tensor
    """(N,), float32: in standard deviations of normal images' (of their logarithms)"""
    p_values: Tensor
    """(N,), float64: share of normal images at least as anomalous; see `conformal`"""
    maps: Tensor
    """(N, H, W), float32: distances over the mean one of normal images"""
    is_own: Tensor
    """(N,), bool: images of the calibration, compared with none that they belong together with"""


def raw_scores(maps: Tensor) -> Tensor:
    """(N, H, W) -> (N,): the mean over the most anomalous `TOP_SHARE` of each image's pixels."""
    pixels = maps.flatten(1)
    return pixels.topk(max(1, round(TOP_SHARE * pixels.shape[1]))).values.mean(1) + torch.finfo(torch.float32).tiny


@dataclass(frozen=True, eq=False)
class Calibration:
    """Normal images as a model sees them; made by `AnomalyPipeline.calibrate`."""

    bank: Bank
    scale: tuple[float, float]
    """mean and standard deviation of the logarithms of normal images' `raw_scores`"""
    group_scores: Tensor
    """(G,), float32: the highest score of each group of normal images, judged without the group"""
    pixel_threshold: float
    """limit of `Judged.maps`: at most a share of `false_alarms` of normal images has a pixel above"""
    start_timesteps: tuple[int, ...]
    facts: dict[str, Any]
    """plain JSON values: false_alarms, num_images, num_groups, num_known, model (a fingerprint)"""
    groups: Tensor
    """(M,), int64: group of each normal image, of 0 to G - 1, and of each known one, G and above"""
    hashes: Tensor
    """(M, 16), uint8: `image_hash` of the normal images, then of the known ones"""

    @classmethod
    def fit(
        cls, bank: Bank, levels: Levels, groups: Tensor, hashes: Tensor, *, start_timesteps: tuple[int, ...],
        false_alarms: float, facts: dict[str, Any],
    ) -> "Calibration":  # fmt: skip
        """Calibrate by normal images that the model was not trained on, each judged without those it belongs with.

        Args:
            bank: of M images.
            levels: features of the first N of them, the normal ones, projected.
            groups, hashes: of the M images.
            false_alarms: share of normal images that may be called anomalous, above 0 and below 1.
        Raises: ValueError: a share that so few images cannot promise.
        """
        count = len(levels[0])
        maps = bank.maps(levels, groups[:count, None] == groups)
        logs = raw_scores(maps).log()
        scale = float(logs.mean()), float(logs.std()) + torch.finfo(torch.float32).eps
        num_groups = int(groups[:count].max()) + 1

        def highest(values: Tensor) -> Tensor:
            return values.new_zeros(num_groups).scatter_reduce(0, groups[:count], values, "amax", include_self=False)

        return cls(
            bank, scale, highest((logs - scale[0]) / scale[1]),
            threshold(highest(maps.flatten(1).amax(1)).double().numpy(), false_alarms), start_timesteps,
            {**facts, "false_alarms": false_alarms, "num_images": count, "num_groups": num_groups,
             "num_known": len(groups) - count},
            groups, hashes,
        )  # fmt: skip

    @property
    def image_threshold(self) -> float:
        """Limit of `Judged.scores`: above it p-values are `false_alarms` or less."""
        return threshold(self.group_scores.double().numpy(), self.facts["false_alarms"])

    def judge(self, levels: Levels, hashes: Tensor) -> Judged:
        """Judge images.

        Args:
            levels: of N images, projected.
            hashes: (N, 16), uint8: by which the calibration's own are known; such a one is not compared with its group,
                and its group is none of the others in its p-value.
        """
        groups = {row.numpy().tobytes(): int(group) for row, group in zip(self.hashes, self.groups, strict=True)}
        own = torch.tensor([groups.get(row.numpy().tobytes(), -1) for row in hashes], dtype=torch.int64)
        maps = self.bank.maps(levels, own[:, None] == self.groups)
        scores = (raw_scores(maps).log() - self.scale[0]) / self.scale[1]
        p = torch.from_numpy(p_values(scores.double().numpy(), self.group_scores.double().numpy()))
        num_groups = len(self.group_scores)
        is_normal = (own >= 0) & (own < num_groups)
        p[is_normal] = ((p[is_normal] * (num_groups + 1) - 1) / num_groups).clamp(min=1 / num_groups)
        return Judged(scores, p, maps, own >= 0)

    def to_bytes(self) -> bytes:
        """Bytes of a safetensors file."""
        tensors = {"hashes": self.hashes, "groups": self.groups, "group_scores": self.group_scores}
        for number, (level, projection) in enumerate(zip(self.bank.levels, self.bank.projections, strict=True)):
            tensors[f"{number}.bank"] = level
            tensors |= {f"{number}.mean": projection.mean, f"{number}.matrix": projection.matrix}
        about = {
            "version": _VERSION,
            "scale": self.scale,
            "level_scales": self.bank.scales,
            "size": self.bank.size,
            "pixel_threshold": self.pixel_threshold,
            "start_timesteps": self.start_timesteps,
            "facts": self.facts,
        }
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        return save(whole, {_FORMAT: json.dumps(about, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """Calibration from a file of `to_bytes`.  Raises: ValueError: no such file, or another kind."""
        if not path.is_file():
            raise ValueError(f"{path} is no file; make one with `fastddpm detect`")
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})[_FORMAT])
            if about.get("version") != _VERSION:
                raise ValueError("it is of another version of fastddpm")
            return _loaded(about, load(path.read_bytes()))
        except Exception as error:  # safetensors, json and what is missing raise their own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{path} holds no calibration of ours ({reason}); make one anew") from error


def _loaded(about: dict[str, Any], tensors: dict[str, Tensor]) -> Calibration:
    """Raises: ValueError, KeyError and others: what does not fit together."""
    (mean, spread), (height, width) = about["scale"], about["size"]
    scales, starts = about["level_scales"], about["start_timesteps"]
    groups, facts = tensors["groups"], about["facts"]
    numbers = [mean, spread, *scales, about["pixel_threshold"], *tensors["group_scores"].tolist()]
    if not all(type(n) in (int, float) and math.isfinite(n) for n in numbers) or not all(
        type(n) is int and 1 <= n <= MAX_ASKED for n in (height, width, *starts)
    ):
        raise ValueError(f"numbers that are none, or counts that are not 1 to {MAX_ASKED:,}")
    levels = [tensors[f"{number}.bank"] for number in range(len(scales))]
    if not starts or not {len(groups)} == {len(of) for of in (tensors["hashes"], *levels)}:
        raise ValueError("parts of different numbers of images")
    num_allowed(facts["false_alarms"], len(tensors["group_scores"]))
    projections = [Projection(tensors[f"{number}.mean"], tensors[f"{number}.matrix"]) for number in range(len(scales))]
    bank = Bank(tuple(map(by_place, levels)), tuple(projections), tuple(scales), (height, width))
    return Calibration(
        bank, (mean, spread), tensors["group_scores"], about["pixel_threshold"], tuple(starts), facts,
        groups, tensors["hashes"],
    )  # fmt: skip


def check_normal(count: int, groups: Sequence[int], false_alarms: float) -> None:
    """Raises: ValueError: fewer normal images than `MIN_NORMAL`, or too few for a share of false alarms."""
    if count < MIN_NORMAL:
        raise ValueError(f"got {count} normal images to calibrate with; give at least {MIN_NORMAL}")
    num_allowed(false_alarms, len(set(groups)))
