"""A detection as one network: pixels in, scores and maps out."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastddpm.measures.calibration import Calibration, raw_scores
from fastddpm.measures.neighbours import coarse
from fastddpm.pipelines.anomaly import AnomalyPipeline, feature_layers, tapped


class Detector(nn.Module):
    """The same as a call of `AnomalyPipeline` with a calibration, in operations that exporters know; pictures of the
    calibration itself are judged as any other."""

    def __init__(self, pipeline: AnomalyPipeline, calibration: Calibration):
        super().__init__()
        self.unet, self._calibration = pipeline.unet, calibration
        self.unit = calibration.scale[1]
        """share of the distance from the nearest normal pictures that a score of 1 is"""
        self._classes = pipeline.labels_or_any(None, 1)
        alphas = pipeline.scheduler.alphas_cumprod
        self._starts = [(start - 1, float(alphas[start - 1]) ** 0.5) for start in calibration.start_timesteps]
        bank = calibration.bank
        for number, (projection, rows) in enumerate(zip(bank.projections, bank.rows, strict=True)):
            self.register_buffer(f"mean_{number}", projection.mean)
            self.register_buffer(f"matrix_{number}", projection.matrix)
            self.register_buffer(f"rows_{number}", rows)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Judge (B, C, H, W), uint8. Returns: scores (B,) and maps (B, H, W), float32."""
        x_0, count, seen = images.float() / 127.5 - 1, images.shape[0], []  # len() would be a number to exporters
        labels = None if self._classes is None else self._classes.expand(count)
        with tapped(feature_layers(self.unet)) as outputs:
            for timestep, signal in self._starts:
                timesteps = torch.full((1,), timestep, dtype=torch.int64).expand(count)
                self.unet(signal * x_0, timesteps, class_labels=labels)
                seen.append([coarse(output.float()) for output in outputs])
        bank = self._calibration.bank
        maps = [self._map(number, torch.cat(level, 1)) for number, level in enumerate(zip(*seen, strict=True))]
        scaled = [of / scale for of, scale in zip(maps, bank.scales, strict=True)]
        found = torch.stack([F.interpolate(each[:, None], bank.size, mode="bilinear")[:, 0] for each in scaled]).mean(0)
        mean, spread = self._calibration.scale
        return (raw_scores(found).log() - mean) / spread, found

    def _map(self, number: int, level: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, h, w): distance from the nearest normal picture, as `neighbours.nearest`."""
        mean, matrix, rows = (getattr(self, f"{name}_{number}") for name in ("mean", "matrix", "rows"))
        features = (level.movedim(1, -1) - mean) @ matrix
        queries = F.pad(features, (0, 1), value=1.0).permute(1, 2, 0, 3)
        place = (queries @ rows).argmin(-1)[:, :, None].expand(-1, -1, features.shape[-1], -1)  # (h, w, d, B)
        apart = features.permute(1, 2, 3, 0) + rows[:, :, :-1].gather(3, place) / 2
        return apart.square().sum(2).sqrt().permute(2, 0, 1)


class Predictor(nn.Module):
    """The network alone, with a tensor for its answer."""

    def __init__(self, unet: Any):
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Predict from x_t, (B, C, H, W), float32, and t, (B,), int64."""
        return self.unet(sample, timestep, class_labels=class_labels).sample
