"""Images that a model of normal ones does not know: how badly it sees through noise on them, and what it makes of them.

A model that was trained on normal images alone predicts the noise on a normal image well, and denoises it to something
near it. Where it fails more than it does on normal images, at that place and timestep, there is an anomaly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from fastddpm.data import to_uint8
from fastddpm.evaluation.calibration import Calibration, Judged, Probe
from fastddpm.evaluation.judge import Judge
from fastddpm.pipelines.base import padded
from fastddpm.pipelines.fingerprint import fingerprint
from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.portable import check_output_type, in_format, reverse
from fastddpm.pipelines.renoise import Images, RenoisingPipeline, to_x_0
from fastddpm.pipelines.steps import nearest_steps, set_timesteps_from, take_step_of

PREDICTIONS = ("epsilon", "sample", "v_prediction")


@dataclass
class AnomalyOutput(BaseOutput):
    """What is known of B images; tensors on the CPU.

    `scores`: (B,), higher is less normal; `is_anomaly`: (B,), bool, above the threshold. `maps`: (B, H, W);
    `regions`: (B, H, W), bool, above the threshold of pixels. `kind_scores`, `kind_maps`: of each kind of error alone.
    `reconstructions`: one of each image and start, those of an image together; empty if nothing was denoised.
    """

    scores: Tensor
    is_anomaly: Tensor
    maps: Tensor
    regions: Tensor
    kind_scores: dict[str, Tensor]
    kind_maps: dict[str, Tensor]
    reconstructions: list[Image.Image] | np.ndarray | Tensor


class AnomalyPipeline(RenoisingPipeline):
    """Tell images from the normal ones that a model was trained on.

    `calibrate` looks at normal images that it was not trained on; a call then judges others by them.
    """

    @torch.no_grad()
    def calibrate(
        self,
        normal_images: Images,
        probe: Probe | None = None,
        *,
        features: Judge | None = None,
        false_alarms: float = 0.05,
        micro_batch_size: int = 64,
    ) -> Calibration:
        """Learn how normal images answer.

        Args:
            normal_images: at least 20, better 200; PIL images, or (N, C, H, W), uint8, or float in [0, 1].
            probe: what is asked; None: `usual_probe`.
            features: a network of `fastddpm judge`, for the kind "feature".
            false_alarms: share of normal images that may be called anomalous.
            micro_batch_size: images of one forward pass.
        Raises: ValueError: too few images, or of another size; a probe that the model or its scheduler cannot answer.
        """
        if probe is None:
            probe = self.usual_probe(features)
        self.check_probe(probe, features)
        residuals, _ = self._answers(to_x_0(normal_images, self.image_shape), probe, features, micro_batch_size)
        facts = {
            "model": fingerprint(self.unet, self.scheduler),
            "features": None if features is None else features.sha256(),
        }
        return Calibration.fit(residuals, probe, false_alarms, facts)

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        images: Images,
        calibration: Calibration,
        *,
        features: Judge | None = None,
        micro_batch_size: int = 64,
        output_type: str | None = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Judge images.

        Args:
            images: as in `calibrate`.
            calibration: of this model.
            features: the network it was calibrated with, if it was with one.
            micro_batch_size: images of one forward pass; the last one is padded, so that an image's score does not
                depend on how many there are.
            output_type: of the reconstructions, as in `FastDDPMPipeline`.
        Returns: an `AnomalyOutput`, or a tuple of its members; tensors on the CPU.
        Raises: ValueError: a calibration of another model, or with other features; images of another size.
        """
        check_output_type(output_type)
        self.check_calibration(calibration, features)
        x_0 = to_x_0(images, self.image_shape)
        residuals, reconstructions = self._answers(x_0, calibration.probe, features, micro_batch_size)
        judged: Judged = calibration.judge(residuals)
        drawn = in_format(reconstructions.flatten(0, 1), output_type) if reconstructions.shape[1] else []
        found = AnomalyOutput(
            scores=judged.scores,
            is_anomaly=judged.scores > calibration.image_threshold,
            maps=judged.maps,
            regions=judged.maps > calibration.pixel_threshold,
            kind_scores=judged.kind_scores,
            kind_maps=judged.kind_maps,
            reconstructions=drawn,
        )
        return found if return_dict else found.to_tuple()

    def usual_probe(self, features: Judge | None, **settings: Any) -> Probe:
        """What is asked if nothing else is said: each kind that can be, at the shares of the chain that `Probe` has of
        one of 1,000 timesteps.

        Args:
            settings: fields of `Probe` that differ.
        """
        kinds = ("noise", "pixel") if features is None else ("noise", "pixel", "feature")
        chain = self.scheduler.config.num_train_timesteps
        starts = {
            name: tuple(dict.fromkeys(max(1, start * chain // 1000) for start in getattr(Probe(), name)))
            for name in ("start_timesteps", "reconstruct_from")
        }
        return Probe(**{"kinds": kinds, **starts, **settings})

    def check_probe(self, probe: Probe, features: Judge | None) -> None:
        """Raises: ValueError: a start outside of the chain; features asked for without a network, or given for nothing;
        a scheduler whose noise cannot be predicted."""
        self.starts_of([*probe.start_timesteps, *probe.reconstruct_from])
        if ("feature" in probe.kinds) != (features is not None):
            raise ValueError(
                f"kinds are {', '.join(probe.kinds)} and features are {'not ' if features is None else ''}given; the "
                "kind feature needs a network of `fastddpm judge`, and others do without"
            )
        if features is not None and features.image_shape != self.image_shape:
            raise ValueError(
                f"features are of images {features.image_shape}, the model's are {self.image_shape}; train the judge "
                "on the same images"
            )
        kind = self.scheduler.config.get("prediction_type", "epsilon")
        preserves_variance = hasattr(self.scheduler, "alphas_cumprod") and float(self.scheduler.init_noise_sigma) == 1
        if not preserves_variance or kind not in PREDICTIONS:
            raise ValueError(
                f"{type(self.scheduler).__name__} with prediction_type {kind!r} noises in another way; wanted a "
                f"variance-preserving one with {', '.join(PREDICTIONS)}, such as DDPM, DDIM or DPM-Solver++"
            )

    def check_calibration(self, calibration: Calibration, features: Judge | None) -> None:
        """Raises: ValueError: it is of another model, or was made with other features."""
        self.check_probe(calibration.probe, features)
        if calibration.facts["model"] != fingerprint(self.unet, self.scheduler):
            raise ValueError("the calibration is of another model, other weights or another solver: calibrate anew")
        if features is not None and calibration.facts["features"] != features.sha256():
            raise ValueError("the calibration was made with other features: give the same network, or calibrate anew")

    def _answers(
        self, x_0: Tensor, probe: Probe, features: Judge | None, micro_batch_size: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Residuals by kind, (N, M, C, H, W), and reconstructions, (N, S, C, H, W); on the CPU."""
        if micro_batch_size < 1:
            raise ValueError(f"micro_batch_size is {micro_batch_size}; it must be at least 1")
        self.set_guidance(1.0, None)
        found: dict[str, list[Tensor]] = {kind: [] for kind in probe.kinds}
        drawn: list[Tensor] = []
        for part in self.progress_bar(x_0.split(micro_batch_size)):
            rows = padded(part, micro_batch_size).to(self._execution_device)
            if "noise" in found:
                found["noise"].append(torch.stack(list(self._of_noise(rows, probe)), 1)[: len(part)].cpu())
            made = self._reconstructed(rows, probe) if probe.reconstructs else rows[:, None][:, :0]
            drawn.append(made[: len(part)].cpu())
            if "pixel" in found:
                found["pixel"].append((made - rows[:, None])[: len(part)].cpu())
            if features is not None:
                found["feature"].append(_of_features(features, rows, made)[: len(part)].cpu())
        return {kind: torch.cat(parts) for kind, parts in found.items()}, torch.cat(drawn)

    def _of_noise(self, x_0: Tensor, probe: Probe) -> Iterator[Tensor]:
        """Predicted less true noise, (B, C, H, W), at each start and noise.  (the paper's Eq. 3, before the square)"""
        kind = self.scheduler.config.get("prediction_type", "epsilon")
        predict = self.predictor(self.labels_or_any(None, len(x_0)))
        for place, start in enumerate(probe.start_timesteps):
            alpha_bar = self.scheduler.alphas_cumprod[start - 1].to(x_0.device, torch.float32)
            for k in range(probe.num_noises):
                seeds = [probe.seed + place * probe.num_noises + k] * len(x_0)
                noise = NoiseSource.of(len(x_0), seeds, None).initial(tuple(x_0.shape), x_0.device)
                x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise
                output = predict(x_t.to(self.unet.dtype), start - 1).float()[:, : x_0.shape[1]]
                yield predicted_noise(output, x_t, alpha_bar, kind) - noise

    def _reconstructed(self, x_0: Tensor, probe: Probe) -> Tensor:
        """x_0 denoised from each start: (B, S, C, H, W), float32, in [-1, 1]."""
        found, dtype, device = [], self.unet.dtype, x_0.device
        predict = self.predictor(self.labels_or_any(None, len(x_0)))
        for place, start in enumerate(probe.reconstruct_from):
            seed = probe.seed + len(probe.start_timesteps) * probe.num_noises + place
            noise = NoiseSource.of(len(x_0), [seed] * len(x_0), None)
            steps = nearest_steps(self.scheduler, start, probe.num_inference_steps)
            timesteps = set_timesteps_from(self.scheduler, start, steps)
            x_t = self._add_noise(x_0, int(timesteps[0]), noise)
            take_step = take_step_of(self.scheduler, noise, dtype, device)
            drawn = reverse(predict, take_step, x_t, timesteps, dtype, lambda *_: None)
            found.append(drawn.clamp(-1, 1))
        return torch.stack(found, 1)


def predicted_noise(output: Tensor, x_t: Tensor, alpha_bar: Tensor, prediction_type: str) -> Tensor:
    """The noise that a model's output says is in x_t.  (Salimans & Ho 2022, appendix D, for v)

    Args:
        output, x_t: (B, C, H, W), float32.
        alpha_bar: a number, on the same device.
        prediction_type: epsilon, sample or v_prediction.
    """
    if prediction_type == "epsilon":
        return output
    if prediction_type == "v_prediction":
        return alpha_bar.sqrt() * output + (1 - alpha_bar).sqrt() * x_t
    return (x_t - alpha_bar.sqrt() * output) / (1 - alpha_bar).sqrt()


def _of_features(features: Judge, x_0: Tensor, made: Tensor) -> Tensor:
    """Distances between feature maps of images and of their reconstructions, (B, S, levels, H, W): at each place
    between unit vectors."""
    size = x_0.shape[-2:]
    wanted = _unit_maps(features, x_0)
    found = []
    for column in made.unbind(1):
        pairs: Sequence[tuple[Tensor, Tensor]] = list(zip(_unit_maps(features, column), wanted, strict=True))
        levels = [(a - b).square().sum(1, keepdim=True).sqrt() for a, b in pairs]
        found.append(torch.cat([F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in levels], 1))
    return torch.stack(found, 1)


def _unit_maps(features: Judge, images: Tensor) -> list[Tensor]:
    return [F.normalize(maps.to(images.device), dim=1) for maps in features.feature_maps(to_uint8(images))]
