"""Images that a model of normal ones does not know: what its layers see in them, how badly it sees through noise on
them, and what it makes of them.

A model that was trained on normal images alone sees in each of them what it saw in others at about the same place,
predicts the noise on it well, and denoises it to something near it. Where that fails more than it does on normal
images, there is an anomaly.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor, nn

from fastddpm.data import to_uint8
from fastddpm.data.siblings import near_copies
from fastddpm.data.store import HASH_BYTES, image_hash
from fastddpm.measures.calibration import KINDS, Answers, Calibration, Kind, Probe
from fastddpm.measures.neighbours import Levels, Projection, coarse
from fastddpm.pipelines.base import fingerprint, padded
from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.portable import Callback, check_output_type, in_format, reverse
from fastddpm.pipelines.renoise import Images, RenoisingPipeline, predicted_noise, to_x_0
from fastddpm.pipelines.steps import nearest_steps, set_timesteps_from, take_step_of

PREDICTIONS = ("epsilon", "sample", "v_prediction")
FIRST_IMAGES = 64
"""normal images that say in which numbers features are kept; all others are then kept in these"""

AfterPass = Callable[[int], None]
"""told the timestep of a forward pass that was made"""


@dataclass
class AnomalyOutput(BaseOutput):
    """Judgement of B images; tensors on the CPU.

    `scores`: (B,), higher is less normal; `is_anomaly`: (B,), bool, above the threshold. `maps`: (B, H, W);
    `regions`: (B, H, W), bool, above the threshold of pixels. `kind_scores`, `kind_maps`: of each kind alone.
    `reconstructions`: one of each image and start, those of an image together; empty if nothing was denoised.
    `is_calibrated_on`: (B,), bool, of images that the calibration was made from, each compared with the others only;
    None: an older calibration, which does not know.
    """

    scores: Tensor
    is_anomaly: Tensor
    maps: Tensor
    regions: Tensor
    kind_scores: dict[Kind, Tensor]
    kind_maps: dict[Kind, Tensor]
    reconstructions: list[Image.Image] | np.ndarray | Tensor
    is_calibrated_on: Tensor | None = None


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
        known_images: Images | None = None,
        false_alarms: float = 0.05,
        groups: np.ndarray | None = None,
        micro_batch_size: int = 64,
        callback_on_step_end: Callback | None = None,
    ) -> Calibration:
        """Learn how normal images answer.

        Args:
            normal_images: at least 20, better 200; PIL images, or (N, C, H, W), uint8, or float in [0, 1]. The model
                must not have been trained on them.
            probe: what is asked; None: `usual_probe`.
            known_images: other normal ones, such as those it was trained on: what is seen in an image is compared with
                these too. Those that are among `normal_images` are left out.
            false_alarms: share of normal images that may be called anomalous.
            groups: (N,), int64, equal for normal images that belong together, such as shots of one part: none is judged
                by another of them, as a fresh image is not. None: near-copies do, which are looked for.
            micro_batch_size: images of one forward pass.
            callback_on_step_end: called after each forward pass, as in `FastDDPMPipeline`, without tensors; `step` and
                `num_timesteps` count the passes of all images. What it raises ends the computation.
        Raises: ValueError: too few images, or of another size; a probe that the model or its scheduler cannot answer.
        """
        if probe is None:
            probe = self.usual_probe()
        self.check_probe(probe)
        self.set_guidance(1.0, None)
        x_0 = to_x_0(normal_images, self.image_shape)
        firsts = others = x_0[:0]
        if "feature" in probe.kinds:
            firsts = x_0[:FIRST_IMAGES]
            given = firsts[:0] if known_images is None else to_x_0(known_images, self.image_shape)
            taken = {image.numpy().tobytes() for image in x_0}
            others = given[[place for place, image in enumerate(given) if image.numpy().tobytes() not in taken]]
        together = near_copies(to_uint8(x_0).cpu().numpy()) if groups is None else groups
        seen_only = Probe(**{**vars(probe), "kinds": ("feature",)})
        asked = ((firsts, seen_only), (others, seen_only), (x_0, probe))
        after_pass = self._counted(callback_on_step_end, asked, micro_batch_size)
        seen = [self._seen(part, seen_only, after_pass)[1] for part in firsts.split(micro_batch_size) if len(part)]
        projections = [Projection.of(torch.cat(level)) for level in zip(*seen, strict=True)]
        known = None
        if len(others):
            known = self._answers(others, seen_only, projections, micro_batch_size, after_pass)[0].levels
        answers, _ = self._answers(x_0, probe, projections, micro_batch_size, after_pass)
        return Calibration.fit(
            answers, probe, known=known, projections=projections, size=(x_0.shape[2], x_0.shape[3]),
            false_alarms=false_alarms, facts={"model": fingerprint(self.unet, self.scheduler)},
            hashes=_hashes(torch.cat([x_0, others])), groups=torch.from_numpy(together),
        )  # fmt: skip

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        images: Images,
        calibration: Calibration,
        *,
        micro_batch_size: int = 64,
        output_type: str | None = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
    ) -> Any:
        """Judge images.

        Args:
            images: as in `calibrate`.
            calibration: of this model.
            micro_batch_size: images of one forward pass; the last one is padded, so that an image's score does not
                depend on how many there are.
            output_type: of the reconstructions, as in `FastDDPMPipeline`.
            callback_on_step_end: as in `calibrate`.
        Returns: an `AnomalyOutput`, or a tuple of its members; tensors on the CPU.
        Raises: ValueError: a calibration of another model; images of another size.
        """
        check_output_type(output_type)
        self.check_calibration(calibration)
        self.set_guidance(1.0, None)
        x_0 = to_x_0(images, self.image_shape)
        projections = () if calibration.neighbours is None else calibration.neighbours.projections
        probe = calibration.probe
        after_pass = self._counted(callback_on_step_end, ((x_0, probe),), micro_batch_size)
        answers, reconstructions = self._answers(x_0, probe, projections, micro_batch_size, after_pass)
        same = calibration.same(_hashes(x_0))
        judged = calibration.judge(answers, same)
        drawn = in_format(reconstructions.flatten(0, 1), output_type) if reconstructions.shape[1] else []
        found = AnomalyOutput(
            scores=judged.scores,
            is_anomaly=judged.scores > calibration.image_threshold,
            maps=judged.maps,
            regions=judged.maps > calibration.pixel_threshold,
            kind_scores=judged.kind_scores,
            kind_maps=judged.kind_maps,
            reconstructions=drawn,
            is_calibrated_on=None if same is None else same.any(1),
        )
        return found if return_dict else found.to_tuple()

    def usual_probe(self, **settings: Any) -> Probe:
        """Probe that is used if nothing else is said: at the shares of the chain that `Probe` has of one of 1,000
        timesteps.

        Args:
            settings: fields of `Probe` that differ.
        """
        chain = self.scheduler.config.num_train_timesteps
        starts = {
            name: tuple(dict.fromkeys(max(1, start * chain // 1000) for start in getattr(Probe(), name)))
            for name in ("start_timesteps", "reconstruct_from")
        }
        return Probe(**{**starts, **settings})

    def check_probe(self, probe: Probe) -> None:
        """Raises: ValueError: a start outside of the chain; a scheduler whose noise cannot be predicted; a network that
        shows no features."""
        self.starts_of([*probe.start_timesteps, *probe.reconstruct_from])
        if "feature" in probe.kinds:
            feature_layers(self.unet)
        kind = self.scheduler.config.get("prediction_type", "epsilon")
        preserves_variance = hasattr(self.scheduler, "alphas_cumprod") and float(self.scheduler.init_noise_sigma) == 1
        if not preserves_variance or kind not in PREDICTIONS:
            raise ValueError(
                f"{type(self.scheduler).__name__} with prediction_type {kind!r} noises in another way; wanted a "
                f"variance-preserving one with {', '.join(PREDICTIONS)}, such as DDPM, DDIM or DPM-Solver++"
            )

    def check_calibration(self, calibration: Calibration) -> None:
        """Raises: ValueError: it is of another model."""
        self.check_probe(calibration.probe)
        if calibration.facts.get("model") != fingerprint(self.unet, self.scheduler):
            raise ValueError("the calibration is of another model, other weights or another solver: calibrate anew")

    def _counted(
        self, callback: Callback | None, asked: Sequence[tuple[Tensor, Probe]], micro_batch_size: int
    ) -> AfterPass:
        """Make a function that tells a callback of each forward pass, and count the passes that are asked for.

        Raises: ValueError: no images in a micro-batch.
        """
        if micro_batch_size < 1:
            raise ValueError(f"micro_batch_size is {micro_batch_size}; it must be at least 1")
        self._num_timesteps = sum(-(-len(x_0) // micro_batch_size) * self._passes(probe) for x_0, probe in asked)
        done = itertools.count()

        def after_pass(timestep: int) -> None:
            if callback is not None:
                callback(self, next(done), timestep, {})

        return after_pass

    def _passes(self, probe: Probe) -> int:
        """Forward passes of a micro-batch."""
        seen = len(probe.start_timesteps) * probe.num_noises if probe.predicts else 0
        starts = probe.reconstruct_from if "pixel" in probe.kinds else ()
        return seen + sum(nearest_steps(self.scheduler, start, probe.num_inference_steps) for start in starts)

    def _answers(
        self,
        x_0: Tensor,
        probe: Probe,
        projections: Sequence[Projection],
        micro_batch_size: int,
        after_pass: AfterPass = lambda _: None,
    ) -> tuple[Answers, Tensor]:
        """Answers of the model about images, and reconstructions, (N, S, C, H, W), on the CPU; features stay where they
        are."""
        residuals: dict[Kind, list[Tensor]] = {kind: [] for kind in KINDS if kind in probe.kinds and kind != "feature"}
        levels: list[list[Tensor]] = []
        drawn: list[Tensor] = []
        for part in self.progress_bar(x_0.split(micro_batch_size)):
            rows = padded(part, micro_batch_size).to(self._execution_device)
            if probe.predicts:
                noise, seen = self._seen(rows, probe, after_pass)
                kept = [project(level)[: len(part)] for project, level in zip(projections, seen, strict=True)]
                levels.append(kept)
                if "noise" in residuals:
                    residuals["noise"].append(noise[: len(part)].cpu())
            made = self._reconstructed(rows, probe, after_pass) if "pixel" in residuals else rows[:, None][:, :0]
            drawn.append(made[: len(part)].cpu())
            if "pixel" in residuals:
                residuals["pixel"].append((made - rows[:, None])[: len(part)].cpu())
        together = {kind: torch.cat(parts) for kind, parts in residuals.items()}
        return Answers(together, [torch.cat(level) for level in zip(*levels, strict=True)]), torch.cat(drawn)

    def _seen(self, x_0: Tensor, probe: Probe, after_pass: AfterPass = lambda _: None) -> tuple[Tensor, Levels]:
        """At each start and noise, predicted less true noise (the paper's Eq. 3, before the square), (B, M, C, H, W);
        and what each of the `feature_layers` puts out meanwhile, the mean over the noises of each start, the starts
        one after the other: (B, D, h, w). Without the kind feature, no layers."""
        x_0 = x_0.to(self._execution_device)
        kind = self.scheduler.config.get("prediction_type", "epsilon")
        predict = self.predictor(self.labels_or_any(None, len(x_0)))
        layers = feature_layers(self.unet) if "feature" in probe.kinds else []
        errors: list[Tensor] = []
        of_starts: list[list[Tensor]] = []
        with tapped(layers) as seen:
            for place, start in enumerate(probe.start_timesteps):
                alpha_bar = self.scheduler.alphas_cumprod[start - 1].to(x_0.device, torch.float32)
                sums: list[Tensor] = []
                for k in range(probe.num_noises):
                    seeds = [probe.seed + place * probe.num_noises + k] * len(x_0)
                    noise = NoiseSource.of(len(x_0), seeds, None).initial(tuple(x_0.shape), x_0.device)
                    x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise
                    output = predict(x_t.to(self.unet.dtype), start - 1).float()[:, : x_0.shape[1]]
                    errors.append(predicted_noise(output, x_t, alpha_bar, kind) - noise)
                    maps = [coarse(map_.float()) for map_ in seen]
                    sums = [old + new for old, new in zip(sums, maps, strict=True)] if sums else maps
                    after_pass(start - 1)
                of_starts.append([total / probe.num_noises for total in sums])
        return torch.stack(errors, 1), [torch.cat(level, 1) for level in zip(*of_starts, strict=True)]

    def _reconstructed(self, x_0: Tensor, probe: Probe, after_pass: AfterPass) -> Tensor:
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
            drawn = reverse(predict, take_step, x_t, timesteps, dtype, lambda _, t, __: after_pass(t))
            found.append(drawn.clamp(-1, 1))
        return torch.stack(found, 1)


def _hashes(images: Tensor) -> Tensor:
    """(N, 16), uint8, of images in [-1, 1]: those of the store."""
    found = [list(image_hash(image)) for image in to_uint8(images).cpu().numpy()]
    return torch.tensor(found, dtype=torch.uint8).reshape(-1, HASH_BYTES)


def feature_layers(unet: Any) -> list[nn.Module]:
    """The bottleneck of a U-Net and each level on its way up, each puts out (B, D, h, w).

    Raises: ValueError: a network of another build.
    """
    if hasattr(unet, "up_attentions"):  # ours: a block a level, each followed by its attention
        return [unet.down_attentions[-1], *reversed(unet.up_attentions)]
    layers = [getattr(unet, "mid_block", None), *getattr(unet, "up_blocks", ())]
    if found := [layer for layer in layers if layer is not None]:
        return found
    raise ValueError(
        f"{type(unet).__name__} has neither mid_block nor up_blocks, so it shows no features; ask for the kinds noise "
        "and pixel only"
    )


@contextmanager
def tapped(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Outputs of each layer's last pass, in place, while the context is open."""
    seen: list[Any] = [None] * len(layers)

    def keep(place: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            seen[place] = output

        return hook

    handles = [layer.register_forward_hook(keep(place)) for place, layer in enumerate(layers)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
