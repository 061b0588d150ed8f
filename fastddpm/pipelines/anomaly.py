"""Images that a model of normal ones does not know, by what its layers see in them.

A model that was trained on normal images alone sees in each of them what it saw in others at the same place. Where it
does not, there is an anomaly.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from fastddpm.config.checks import MIN_NORMAL
from fastddpm.data import to_uint8
from fastddpm.data.siblings import near_copies
from fastddpm.data.store import HASH_BYTES, image_hash
from fastddpm.measures.calibration import START_TIMESTEPS, Calibration, check_normal
from fastddpm.measures.neighbours import Bank, Levels, Projection, coarse
from fastddpm.pipelines.base import fingerprint, padded
from fastddpm.pipelines.portable import Callback
from fastddpm.pipelines.renoise import Images, RenoisingPipeline, to_x_0

FIRST_IMAGES = 64
"""normal images that say in which numbers features are kept, and how far they lie apart"""

AfterPass = Callable[[int], None]
"""told the timestep of a forward pass that was made"""


@dataclass
class AnomalyOutput(BaseOutput):
    """Judgement of B images; tensors on the CPU.

    `scores`: (B,), higher is less normal; `p_values`: (B,), float64, share of normal images that are at least as
    anomalous; `is_anomaly`: (B,), bool, above the threshold. `maps`: (B, H, W); `regions`: (B, H, W), bool, above the
    threshold of pixels. `is_calibrated_on`: (B,), bool, of images that the calibration was made from, each compared
    with none that belongs together with it.
    """

    scores: Tensor
    p_values: Tensor
    is_anomaly: Tensor
    maps: Tensor
    regions: Tensor
    is_calibrated_on: Tensor


class AnomalyPipeline(RenoisingPipeline):
    """Tell images from the normal ones that a model was trained on.

    `calibrate` looks at normal images that it was not trained on; a call then judges others by them.
    """

    @torch.no_grad()
    def calibrate(
        self,
        normal_images: Images,
        start_timesteps: Sequence[int] | None = None,
        *,
        known_images: Images | None = None,
        false_alarms: float = 0.05,
        groups: np.ndarray | None = None,
        micro_batch_size: int = 64,
        callback_on_step_end: Callback | None = None,
    ) -> Calibration:
        """Learn what is seen in normal images.

        Args:
            normal_images: at least 20, better 200; PIL images, or (N, C, H, W), uint8, or float in [0, 1]. The model
                must not have been trained on them.
            start_timesteps: timesteps at which images are looked at, one forward pass each; None: `usual_starts`.
            known_images: other normal ones, such as those it was trained on: what is seen in an image is compared with
                these too. Those that are among `normal_images` are left out.
            false_alarms: share of normal images that may be called anomalous.
            groups: (N,), int64, equal for normal images that belong together, such as shots of one part: none is judged
                by another of them, as a fresh image is not, and only the highest of their scores counts. None:
                near-copies do, which are looked for; among known images they always are.
            micro_batch_size: images of one forward pass.
            callback_on_step_end: called after each forward pass, as in `FastDDPMPipeline`, without tensors; `step` and
                `num_timesteps` count the passes of all images. What it raises ends the computation.
        Raises: ValueError: too few images for the share, or of another size; a model that cannot be asked.
        """
        starts = self.usual_starts() if start_timesteps is None else tuple(start_timesteps)
        self.check_starts(starts)
        x_0 = to_x_0(normal_images, self.image_shape)
        together = near_copies(to_uint8(x_0).cpu().numpy()) if groups is None else groups
        check_normal(len(x_0), together.tolist(), false_alarms)
        given = x_0[:0] if known_images is None else to_x_0(known_images, self.image_shape)
        hashes, known_hashes = _hashes(x_0), _hashes(given)
        taken = {row.numpy().tobytes() for row in hashes}
        new = [place for place, row in enumerate(known_hashes) if row.numpy().tobytes() not in taken]
        known = given[new]
        numbered = [torch.unique(torch.as_tensor(of), return_inverse=True)[1] for of in (
            together, near_copies(to_uint8(known).cpu().numpy()))]  # fmt: skip
        all_groups = torch.cat([numbered[0], numbered[1] + int(numbered[0].max()) + 1])
        images = torch.cat([x_0, known])
        # what is fixed by known images alone treats normal ones and fresh ones alike
        fixed = (torch.arange(len(images)) >= len(x_0)) == (len(known) >= MIN_NORMAL)
        places = fixed.nonzero()[:, 0]
        sample = places[:: max(1, len(places) // FIRST_IMAGES)][:FIRST_IMAGES]
        after_pass = self._counted(callback_on_step_end, (len(sample), len(images)), starts, micro_batch_size)
        seen = self._seen(images[sample], starts, micro_batch_size, after_pass)
        projections = [Projection.of(level) for level in seen]
        levels = self._seen(images, starts, micro_batch_size, after_pass, projections)
        bank = Bank.fit(levels, projections, (x_0.shape[2], x_0.shape[3]), sample, fixed, all_groups)
        return Calibration.fit(
            bank, [level[: len(x_0)] for level in levels], all_groups, torch.cat([hashes, known_hashes[new]]),
            start_timesteps=starts, false_alarms=false_alarms, facts={"model": fingerprint(self.unet, self.scheduler)},
        )  # fmt: skip

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        images: Images,
        calibration: Calibration,
        *,
        micro_batch_size: int = 64,
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
    ) -> Any:
        """Judge images.

        Args:
            images: as in `calibrate`.
            calibration: of this model.
            micro_batch_size: images of one forward pass; the last one is padded, so that an image's score does not
                depend on how many there are.
            callback_on_step_end: as in `calibrate`.
        Returns: an `AnomalyOutput`, or a tuple of its members; tensors on the CPU.
        Raises: ValueError: a calibration of another model; images of another size.
        """
        self.check_calibration(calibration)
        x_0, starts = to_x_0(images, self.image_shape), calibration.start_timesteps
        after_pass = self._counted(callback_on_step_end, (len(x_0),), starts, micro_batch_size)
        levels = self._seen(x_0, starts, micro_batch_size, after_pass, calibration.bank.projections)
        judged = calibration.judge(levels, _hashes(x_0))
        found = AnomalyOutput(
            scores=judged.scores,
            p_values=judged.p_values,
            is_anomaly=judged.scores > calibration.image_threshold,
            maps=judged.maps,
            regions=judged.maps > calibration.pixel_threshold,
            is_calibrated_on=judged.is_own,
        )
        return found if return_dict else found.to_tuple()

    def usual_starts(self) -> tuple[int, ...]:
        """Timesteps that are asked at if nothing else is said: at the same shares of the chain as `START_TIMESTEPS` of
        1,000."""
        chain = self.scheduler.config.num_train_timesteps
        return tuple(dict.fromkeys(max(1, start * chain // 1000) for start in START_TIMESTEPS))

    def check_starts(self, starts: Sequence[int]) -> None:
        """Raises: ValueError: no start, one twice or outside of the chain; a schedule that does not preserve variance;
        a network that shows no features."""
        if not starts or len(set(starts)) < len(starts) or min(starts) < 1:
            raise ValueError(
                f"start_timesteps is {list(starts)}; wanted numbers of steps left to go, from 1, each once"
            )
        self.starts_of(list(starts))
        feature_layers(self.unet)
        if not hasattr(self.scheduler, "alphas_cumprod") or float(self.scheduler.init_noise_sigma) != 1:
            raise ValueError(
                f"{type(self.scheduler).__name__} noises in another way; wanted a variance-preserving scheduler, such "
                "as DDPM, DDIM or DPM-Solver++"
            )

    def check_calibration(self, calibration: Calibration) -> None:
        """Raises: ValueError: it is of another model."""
        self.check_starts(calibration.start_timesteps)
        if calibration.facts.get("model") != fingerprint(self.unet, self.scheduler):
            raise ValueError("the calibration is of another model, other weights or another solver: calibrate anew")

    def _counted(
        self, callback: Callback | None, counts: Sequence[int], starts: Sequence[int], micro_batch_size: int
    ) -> AfterPass:
        """Make a function that tells a callback of each forward pass, and count the passes that are asked for.

        Raises: ValueError: no images in a micro-batch.
        """
        if micro_batch_size < 1:
            raise ValueError(f"micro_batch_size is {micro_batch_size}; it must be at least 1")
        self._num_timesteps = sum(-(-count // micro_batch_size) * len(starts) for count in counts)
        done = itertools.count()

        def after_pass(timestep: int) -> None:
            if callback is not None:
                callback(self, next(done), timestep, {})

        return after_pass

    def _seen(
        self, x_0: Tensor, starts: Sequence[int], micro_batch_size: int, after_pass: AfterPass = lambda _: None,
        projections: Sequence[Projection] | None = None,
    ) -> Levels:  # fmt: skip
        """Outputs of the `feature_layers` at each start, one after the other: (N, D, h, w), projected if it
        is said how, on the device of the network.

        The network gets the mean of q(x_t | x_0), sqrt(alpha_bar) x_0 without noise: what it sees is then the image's
        alone, and one pass tells more than the mean over four noises (docs/log.md).
        """
        self.set_guidance(1.0, None)
        levels: list[list[Tensor]] = []
        with tapped(feature_layers(self.unet)) as outputs:
            for part in self.progress_bar(x_0.split(micro_batch_size)):
                rows = padded(part, micro_batch_size).to(self._execution_device)
                predict = self.predictor(self.labels_or_any(None, len(rows)))
                at_starts: list[list[Tensor]] = []
                for start in starts:
                    alpha_bar = self.scheduler.alphas_cumprod[start - 1].to(rows.device, torch.float32)
                    predict((alpha_bar.sqrt() * rows).to(self.unet.dtype), start - 1)
                    at_starts.append([coarse(map_.float()) for map_ in outputs])
                    after_pass(start - 1)
                seen = [torch.cat(level, 1) for level in zip(*at_starts, strict=True)]
                if projections is not None:
                    seen = [project(level) for project, level in zip(projections, seen, strict=True)]
                levels.append([level[: len(part)] for level in seen])
        return [torch.cat(level) for level in zip(*levels, strict=True)]


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
        f"{type(unet).__name__} has neither mid_block nor up_blocks, so it shows no features; train another network"
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
