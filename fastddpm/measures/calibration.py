"""Normal images as a model answers them, so that others can be told from them, and thresholds that normal ones seldom
pass."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from fastddpm.config.checks import MIN_NORMAL
from fastddpm.measures.neighbours import Bank, Levels, Moments, Projection

Kind = Literal["noise", "pixel", "feature"]
KINDS: tuple[Kind, ...] = get_args(Kind)

TOP_SHARE = 0.03
"""share of an image's pixels, the most anomalous ones, whose mean is its score: a small defect counts, one pixel does
not"""
_FORMAT = "anomaly_calibration"
MAX_ASKED = 100_000
"""timesteps, pixels a side and noises that a file may ask for"""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Questions to a model about an image."""

    start_timesteps: tuple[int, ...] = (50, 100, 200, 300)
    """timesteps of noise predicted and features seen, one pass each and noise; 300 noises to index 299"""
    num_noises: int = 4
    """noises at each of them"""
    reconstruct_from: tuple[int, ...] = (200, 400)
    """timesteps that images are denoised from, to be compared with"""
    num_inference_steps: int = 10
    """reverse steps of a reconstruction, at most as many as its start"""
    kinds: tuple[Kind, ...] = KINDS
    seed: int = 0
    """seed of the noise, the same for all images: what it does to each is then the same too, and drops out"""

    def __post_init__(self) -> None:
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise ValueError(f"kinds are {list(self.kinds)}; wanted some of noise, pixel, feature")
        for name in ("start_timesteps", "reconstruct_from"):
            starts = getattr(self, name)
            if not starts or len(set(starts)) < len(starts) or min(starts) < 1:
                raise ValueError(f"{name} is {list(starts)}; wanted numbers of steps left to go, from 1, each once")
        for name in ("num_noises", "num_inference_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def predicts(self) -> bool:
        """True if noise is predicted, for itself or for the features that are seen meanwhile."""
        return "noise" in self.kinds or "feature" in self.kinds

    @property
    def deciding(self) -> tuple[Kind, ...]:
        """The kinds that score and map are the mean of: features alone, where they are among them (docs/log.md)."""
        return ("feature",) if "feature" in self.kinds else self.kinds


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of a model about N images."""

    residuals: Mapping[Kind, Tensor]
    """noise and pixel, those that were asked: (N, M, C, H, W), float32: M residuals of an image"""
    levels: Levels
    """features for the kind feature, projected; none: it was not asked"""


@dataclass(frozen=True, eq=False)
class Judged:
    """Judgement of answers by a calibration."""

    scores: Tensor
    """(N,), float32: the mean of the deciding kinds' scores"""
    maps: Tensor
    """(N, H, W), float32: the mean of their maps"""
    kind_scores: dict[Kind, Tensor]
    """each (N,): in standard deviations of normal images' (of their logarithms)"""
    kind_maps: dict[Kind, Tensor]
    """each (N, H, W): of noise and pixel squared residuals over their variance among normal images, smoothed; of
    features distances over the mean one of normal images. Normal is about 1"""


def raw_scores(maps: Tensor) -> Tensor:
    """(N, H, W) -> (N,): the mean over the most anomalous `TOP_SHARE` of each image's pixels."""
    pixels = maps.flatten(1)
    return pixels.topk(max(1, round(TOP_SHARE * pixels.shape[1]))).values.mean(1) + torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Scale:
    """Scale of normal images' scores of a kind."""

    centre: float
    """mean of their logarithms"""
    spread: float
    """standard deviation of these"""

    @classmethod
    def of(cls, maps: Tensor) -> "Scale":
        """Scale of normal images' maps, (N, H, W)."""
        logs = raw_scores(maps).log()
        return cls(float(logs.mean()), float(logs.std()) + torch.finfo(torch.float32).eps)

    def scores(self, maps: Tensor) -> Tensor:
        """(N, H, W) -> (N,), standardised."""
        return (raw_scores(maps).log() - self.centre) / self.spread


@dataclass(frozen=True, eq=False)
class Calibration:
    """Answers of normal images to a probe; made by `AnomalyPipeline.calibrate`."""

    moments: dict[Kind, Moments]
    """moments of the kinds noise and pixel, those that were asked"""
    neighbours: Bank | None
    """features of normal images, for the kind feature; None: it was not asked"""
    scales: dict[Kind, Scale]
    """scale of each kind"""
    image_threshold: float
    """limit of `Judged.scores`; at most a share of `false_alarms` of normal images is above"""
    pixel_threshold: float
    """limit of `Judged.maps`; at most the same share has a pixel above"""
    probe: Probe
    facts: dict[str, Any]
    """plain JSON values: false_alarms, num_images, num_known, model (a fingerprint)"""
    hashes: Tensor | None = None
    """(M, 16), uint8: `image_hash` of the normal images, then of the known ones; None: an older file, without"""

    @classmethod
    def fit(
        cls,
        answers: Answers,
        probe: Probe,
        *,
        known: Levels | None = None,
        projections: Sequence[Projection] = (),
        size: tuple[int, int],
        false_alarms: float,
        facts: dict[str, Any],
        hashes: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> "Calibration":
        """Calibrate by normal images that the model was not trained on.

        Scales and thresholds come from images judged by others: each fifth by the other four, whole groups at a time.

        Args:
            answers: of N images.
            known: features of other normal images, which may have been trained on; they take no part in thresholds.
            projections: that made features; none: they were not asked.
            size: height and width of the images.
            false_alarms: share of normal images that may be called anomalous, above 0 and below 1.
            groups: (N,), int64, equal for images that belong together.
        Raises: ValueError: fewer than 20 images, or another share.
        """
        count = len(next(iter((*answers.residuals.values(), *answers.levels))))
        if count < MIN_NORMAL:
            raise ValueError(f"got {count} normal images to calibrate with; give at least {MIN_NORMAL}")
        if not 0 < false_alarms < 1:
            raise ValueError(f"false_alarms is {false_alarms}; it is a share of normal images, between 0 and 1")
        moments: dict[Kind, Moments] = {}
        maps: dict[Kind, Tensor] = {}
        for kind, residuals in answers.residuals.items():
            moments[kind], maps[kind] = Moments.fit(residuals, groups)
        neighbours = None
        if projections:
            neighbours, maps["feature"] = Bank.fit(answers.levels, known, projections, size, groups)
        scales = {kind: Scale.of(of) for kind, of in maps.items()}
        judged = _judged(maps, scales, probe)
        return cls(
            moments, neighbours, scales,
            float(torch.quantile(judged.scores, 1 - false_alarms)),
            float(torch.quantile(judged.maps.flatten(1).amax(1), 1 - false_alarms)),
            probe,
            {**facts, "false_alarms": false_alarms, "num_images": count, "num_known": len(known[0]) if known else 0},
            hashes,
        )  # fmt: skip

    def same(self, hashes: Tensor) -> Tensor | None:
        """Normal and known images that some images are, by their hashes, (N, 16): (N, M), bool; None: it is not
        known."""
        return None if self.hashes is None else (hashes[:, None] == self.hashes).all(-1)

    def judge(self, answers: Answers, same: Tensor | None = None) -> Judged:
        """Scores and maps of images, by kind and together; an image is not compared with those that are the `same`."""
        maps = {kind: self.moments[kind].maps(residuals) for kind, residuals in answers.residuals.items()}
        if self.neighbours is not None:
            maps["feature"] = self.neighbours.maps(answers.levels, same)
        return _judged(maps, self.scales, self.probe)

    def to_bytes(self) -> bytes:
        """Bytes of a safetensors file."""
        tensors: dict[str, Tensor] = {} if self.hashes is None else {"hashes": self.hashes}
        for kind, moments in self.moments.items():
            tensors |= {f"{kind}.mean": moments.mean, f"{kind}.variance": moments.variance}
        near = self.neighbours
        for level, (bank, projection) in enumerate(zip(near.banks, near.projections, strict=True) if near else ()):
            name = f"feature.{level}"
            tensors |= {f"{name}.bank": bank, f"{name}.mean": projection.mean, f"{name}.matrix": projection.matrix}
        about = {
            "scales": {kind: asdict(scale) for kind, scale in self.scales.items()},
            "neighbours": None if near is None else {"scales": near.scales, "size": near.size},
            "image_threshold": self.image_threshold,
            "pixel_threshold": self.pixel_threshold,
            "probe": asdict(self.probe),
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
            tensors = load(path.read_bytes())
            asked: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in about["probe"].items()}
            scales = {kind: Scale(**scale) for kind, scale in about["scales"].items()}
            kept = [kind for kind in scales if kind != "feature"]
            moments = {kind: Moments(tensors[f"{kind}.mean"], tensors[f"{kind}.variance"]) for kind in kept}
            near = None if about["neighbours"] is None else _neighbours(tensors, about["neighbours"])
            thresholds = float(about["image_threshold"]), float(about["pixel_threshold"])
            probe, facts = Probe(**asked), about["facts"]
            bounds = [*(of.centre for of in scales.values()), *(near.scales if near else ()), facts["false_alarms"]]
            counts = [*(near.size if near else ()), probe.num_noises, *probe.start_timesteps, *probe.reconstruct_from]
            if not all(map(math.isfinite, [*bounds, *thresholds])) or not all(1 <= n <= MAX_ASKED for n in counts):
                raise ValueError(f"numbers that are none, or counts that are not 1 to {MAX_ASKED:,}")
            return cls(moments, near, scales, *thresholds, probe, facts, tensors.get("hashes"))
        except Exception as error:  # safetensors, json and what is missing raise their own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{path} holds no calibration of ours ({reason}); make one anew") from error


def _neighbours(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Bank:
    names = [f"feature.{level}" for level in range(len(about["scales"]))]
    return Bank(
        tuple(tensors[f"{name}.bank"] for name in names),
        tuple(Projection(tensors[f"{name}.mean"], tensors[f"{name}.matrix"]) for name in names),
        tuple(about["scales"]),
        (about["size"][0], about["size"][1]),
    )


def _judged(maps: dict[Kind, Tensor], scales: Mapping[Kind, Scale], probe: Probe) -> Judged:
    scores = {kind: scales[kind].scores(of) for kind, of in maps.items()}
    return Judged(
        torch.stack([scores[kind] for kind in probe.deciding]).mean(0),
        torch.stack([maps[kind] for kind in probe.deciding]).mean(0),
        scores, maps,
    )  # fmt: skip
