"""What normal images are like to a model, so that others can be told from them: residuals standardised place by place,
and thresholds that normal images seldom pass."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

Kind = Literal["noise", "pixel", "feature"]
Residuals = Mapping[str, Tensor]
"""kind -> (N, M, C, H, W), float32: of N images, M residuals each, (C, H, W)"""

MIN_NORMAL = 20
TOP_SHARE = 0.03
"""of an image's pixels, the most anomalous ones, whose mean is its score: a small defect counts, one pixel does not"""
FLOOR = 0.3
"""of the mean variance, added at each place: where normal images never change, little is not yet much"""
FOLDS = 5
"""of normal images, each judged by what the others say"""
_FORMAT = "anomaly_calibration"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How a model is asked about an image."""

    start_timesteps: tuple[int, ...] = (50, 100, 200, 300, 400, 500)
    """where noise is predicted, one pass each and noise; 300 noises to index 299"""
    num_noises: int = 4
    """at each of them"""
    reconstruct_from: tuple[int, ...] = (200, 400)
    """where images are denoised from, to be compared with"""
    num_inference_steps: int = 10
    """reverse steps of a reconstruction, at most as many as its start"""
    kinds: tuple[Kind, ...] = ("noise", "pixel")
    seed: int = 0
    """of the noise, the same for all images: what it does to each is then the same too, and drops out"""

    def __post_init__(self) -> None:
        if not self.kinds or not set(self.kinds) <= {"noise", "pixel", "feature"}:
            raise ValueError(f"kinds are {list(self.kinds)}; wanted some of noise, pixel, feature")
        for name in ("start_timesteps", "reconstruct_from"):
            starts = getattr(self, name)
            if not starts or len(set(starts)) < len(starts) or min(starts) < 1:
                raise ValueError(f"{name} is {list(starts)}; wanted numbers of steps left to go, from 1, each once")
        for name in ("num_noises", "num_inference_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def reconstructs(self) -> bool:
        """Whether images are denoised, for one kind or another."""
        return "pixel" in self.kinds or "feature" in self.kinds


@dataclass(frozen=True, eq=False)
class Judged:
    """What a calibration makes of residuals."""

    scores: Tensor
    """(N,), float32: the mean of the kinds' scores"""
    maps: Tensor
    """(N, H, W), float32: the mean of the kinds' maps"""
    kind_scores: dict[str, Tensor]
    """each (N,): in standard deviations of normal images' (of their logarithms)"""
    kind_maps: dict[str, Tensor]
    """each (N, H, W): squared residuals over their variance among normal images, smoothed; normal is about 1"""


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance of normal images' residuals at each place, and of their scores."""

    mean: Tensor
    """(M, C, H, W), float32"""
    variance: Tensor
    """(M, C, H, W), float32"""
    centre: float
    """mean of the logarithms of scores"""
    spread: float
    """their standard deviation"""

    @classmethod
    def of(cls, residuals: Tensor, kind: str) -> "Moments":
        """Of normal images: (N, M, C, H, W)."""
        variance, mean = torch.var_mean(residuals, dim=0)
        variance = variance + FLOOR * variance.mean(dim=(1, 2, 3), keepdim=True) + torch.finfo(torch.float32).eps
        logs = raw_scores(_map(residuals, mean, variance, kind)).log()
        return cls(mean, variance, float(logs.mean()), float(logs.std()) + torch.finfo(torch.float32).eps)

    def judge(self, residuals: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """Scores (N,), standardised, and maps (N, H, W)."""
        maps = _map(residuals, self.mean, self.variance, kind)
        return (raw_scores(maps).log() - self.centre) / self.spread, maps


def _map(residuals: Tensor, mean: Tensor, variance: Tensor, kind: str) -> Tensor:
    """(N, M, C, H, W) -> (N, H, W): how far residuals are from normal ones, squared, in variances, smoothed."""
    away = residuals - mean
    if kind == "feature":  # a distance: less than usual is no anomaly
        away = away.clamp(min=0)
    squares = (away.square_() / variance).mean(dim=(1, 2))
    size = smoothing_of(squares.shape[-2], squares.shape[-1])
    return F.avg_pool2d(squares[:, None], size, 1, size // 2, count_include_pad=False)[:, 0]


def smoothing_of(height: int, width: int) -> int:
    """Side of the square over which maps are averaged: about a ninth of the image's, odd, at least 3."""
    return max(3, round(min(height, width) / 9) // 2 * 2 + 1)


def raw_scores(maps: Tensor) -> Tensor:
    """(N, H, W) -> (N,): the mean over the most anomalous `TOP_SHARE` of each image's pixels."""
    pixels = maps.flatten(1)
    return pixels.topk(max(1, round(TOP_SHARE * pixels.shape[1]))).values.mean(1) + torch.finfo(torch.float32).tiny


@dataclass(frozen=True, eq=False)
class Calibration:
    """How normal images answer a probe; made by `AnomalyPipeline.calibrate`."""

    moments: dict[str, Moments]
    """of each kind"""
    image_threshold: float
    """of `Judged.scores`; at most a share of `false_alarms` of normal images is above"""
    pixel_threshold: float
    """of `Judged.maps`; at most the same share has a pixel above"""
    probe: Probe
    facts: dict[str, Any]
    """plain JSON values: false_alarms, num_images, model (a fingerprint), features"""

    @classmethod
    def fit(cls, residuals: Residuals, probe: Probe, false_alarms: float, facts: dict[str, Any]) -> "Calibration":
        """From normal images that the model was not trained on.

        Thresholds come from scores of images by moments that have not seen them: each fifth is judged by the others.

        Args:
            residuals: of N images.
            false_alarms: share of normal images that may be called anomalous, above 0 and below 1.
        Raises: ValueError: fewer than 20 images, or another share.
        """
        count = len(next(iter(residuals.values())))
        if count < MIN_NORMAL:
            raise ValueError(f"got {count} normal images to calibrate with; give at least {MIN_NORMAL}")
        if not 0 < false_alarms < 1:
            raise ValueError(f"false_alarms is {false_alarms}; it is a share of normal images, between 0 and 1")
        scores, maxima = torch.empty(count), torch.empty(count)
        for fold in range(FOLDS):
            places = torch.arange(count) % FOLDS == fold
            others = _moments({kind: of[~places] for kind, of in residuals.items()})
            judged = _judge(others, {kind: of[places] for kind, of in residuals.items()})
            scores[places], maxima[places] = judged.scores, judged.maps.flatten(1).amax(1)
        return cls(
            _moments(residuals),
            float(torch.quantile(scores, 1 - false_alarms)),
            float(torch.quantile(maxima, 1 - false_alarms)),
            probe,
            {**facts, "false_alarms": false_alarms, "num_images": count},
        )

    def judge(self, residuals: Residuals) -> Judged:
        """Scores and maps of images, by kind and together."""
        return _judge(self.moments, residuals)

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        tensors: dict[str, Tensor] = {}
        for kind, moments in self.moments.items():
            tensors |= {f"{kind}.mean": moments.mean.contiguous(), f"{kind}.variance": moments.variance.contiguous()}
        about = {
            "scales": {kind: [moments.centre, moments.spread] for kind, moments in self.moments.items()},
            "image_threshold": self.image_threshold,
            "pixel_threshold": self.pixel_threshold,
            "probe": asdict(self.probe),
            "facts": self.facts,
        }
        return save(tensors, {_FORMAT: json.dumps(about, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """From a file of `to_bytes`.  Raises: ValueError: no such file, or another kind."""
        if not path.is_file():
            raise ValueError(f"{path} is no file; make one with `fastddpm detect`")
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})[_FORMAT])
            tensors = load(path.read_bytes())
            moments = {
                kind: Moments(tensors[f"{kind}.mean"], tensors[f"{kind}.variance"], *map(float, scale))
                for kind, scale in about["scales"].items()
            }
            probe = Probe(**{name: _tuple(value) for name, value in about["probe"].items()})
            thresholds = float(about["image_threshold"]), float(about["pixel_threshold"])
            return cls(moments, *thresholds, probe, dict(about["facts"]))
        except Exception as error:  # safetensors, json and what is missing raise their own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{path} holds no calibration of ours ({reason}); make one anew") from error


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _moments(residuals: Residuals) -> dict[str, Moments]:
    return {kind: Moments.of(of, kind) for kind, of in residuals.items()}


def _judge(moments: Mapping[str, Moments], residuals: Residuals) -> Judged:
    found = {kind: moments[kind].judge(of, kind) for kind, of in residuals.items()}
    scores, maps = {kind: of[0] for kind, of in found.items()}, {kind: of[1] for kind, of in found.items()}
    return Judged(torch.stack(list(scores.values())).mean(0), torch.stack(list(maps.values())).mean(0), scores, maps)
