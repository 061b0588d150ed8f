"""The loss of some images of a run.  (Ho et al. 2020, Alg. 1; the paper's Eq. 2 and 3)"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastddpm import draws
from fastddpm.config import AugmentConfig, TrainConfig
from fastddpm.data import amounts_at, augment, center_crop, crop
from fastddpm.draws import Stream
from fastddpm.schedulers.fused_ddpm import FusedDDPMScheduler


@dataclass(frozen=True)
class Objective:
    """Everything about the loss that is fixed for a run; each draw is keyed by (seed, position)."""

    scheduler: FusedDDPMScheduler
    config: TrainConfig
    null_class: int | None
    seed: int
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    tells_augmentation: bool = False
    """the network takes `augment_labels`"""

    def training(
        self, unet: Any, images: Tensor, labels: Tensor | None, positions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss to minimize.

        Args:
            unet: predicts from (x_t, t, class_labels).
            images: (B, C, H, W), uint8; with random_crop larger than what the network sees.
            labels: (B,), int64; used by class-conditional models.
            positions: (B,), int64, places in the run's global sequence.
        Returns: the weighted loss and the plain one of each image, (B,), float32, and the timesteps, (B,), int64.
        """
        timesteps = self.timesteps(positions)
        if labels is not None and self.null_class is not None:
            dropped = draws.coins(positions, self.config.label_dropout, seed=self.seed, stream=Stream.LABEL_DROP)
        labels = None if self.null_class is None or labels is None else torch.where(dropped, self.null_class, labels)
        images, told = self._augmented(images, positions)
        errors = self._errors(unet, images, timesteps, labels, positions, Stream.TRAIN_NOISE, told=told)
        return errors if self.config.min_snr_gamma is None else errors * self._weight(timesteps), errors, timesteps

    def held_out(self, unet: Any, images: Tensor, labels: Tensor | None, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The plain loss of held-out images, with the same noise and timesteps each time it is asked.

        Returns: the loss of each image, (B,), float32, and the timesteps, (B,), int64.
        """
        num_train = self.scheduler.config.num_train_timesteps
        timesteps = (draws.uniform(positions, seed=self.seed, stream=Stream.EVALUATION) * num_train).long()
        images, kept = center_crop(images, self.config.random_crop), labels if self.null_class is not None else None
        return self._errors(unet, images, timesteps, kept, positions, Stream.EVALUATION, draw=1), timesteps

    def _errors(
        self, unet: Any, images: Tensor, timesteps: Tensor, labels: Tensor | None, positions: Tensor, stream: Stream,
        draw: int = 0,
        told: Mapping[str, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """|| target - prediction ||^2, a mean over each image's elements; everything but the U-Net is float32."""
        x_t, noise = self.scheduler.q_sample(
            images, timesteps, positions, seed=self.seed, stream=stream, draw=draw, channels_last=True
        )
        prediction = unet(x_t, timesteps, class_labels=labels, **(told or {})).sample
        return self.scheduler.denoising_mse(prediction, images, noise, timesteps)

    def timesteps(self, positions: Tensor) -> Tensor:
        """Timesteps that the images at these positions are noised to: (B,), int64."""
        if self.config.timestep_sampling == "uniform":
            quantiles = draws.uniform(positions, seed=self.seed, stream=Stream.TIMESTEP)
        else:
            quantiles = draws.stratified(
                positions, batch_size=self.config.batch_size, seed=self.seed, stream=Stream.TIMESTEP
            )
        num_train = self.scheduler.config.num_train_timesteps
        if self.config.timestep_focus is None:
            return (quantiles * num_train).long().clamp(max=num_train - 1)
        cumulative = focused_distribution(num_train, *self.config.timestep_focus, quantiles.device)
        return torch.searchsorted(cumulative, quantiles, right=True).clamp(max=num_train - 1)

    def _augmented(self, images: Tensor, positions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cropped, mirrored, then moved and changed: (B, C, H, W), uint8, a quarter of the bytes it would be after
        conversion; and what the network is told of the last."""
        side = self.config.random_crop
        if side is not None:
            rows, columns = (size - side + 1 for size in images.shape[-2:])
            tops = draws.integers(positions, rows, seed=self.seed, stream=Stream.CROP)
            lefts = draws.integers(positions, columns, seed=self.seed, stream=Stream.CROP, draw=1)
            images = crop(images, tops, lefts, side)
        for wanted, axis, draw in ((self.config.horizontal_flip, -1, 0), (self.config.vertical_flip, -2, 1)):
            if wanted:
                flipped = draws.coins(positions, 0.5, seed=self.seed, stream=Stream.FLIP, draw=draw)
                images = torch.where(flipped[:, None, None, None], images.flip(axis), images)
        if not self.augment.is_on:
            return images, {}
        amounts = amounts_at(positions, self.augment, seed=self.seed)
        told = {"augment_labels": amounts.float()} if self.tells_augmentation else {}
        return augment(images, amounts, self.augment), told

    def _weight(self, timesteps: Tensor) -> Tensor:
        """min(SNR, gamma), over what the plain loss of the prediction type weighs.  (Hang et al. 2023, Sec. 3.4)"""
        snr = self.scheduler.snr(timesteps)
        implied = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
        return snr.clamp(max=self.config.min_snr_gamma) / implied[self.scheduler.config.prediction_type]


@functools.cache
def focused_distribution(
    num_train_timesteps: int, center: float, width: float, share: float, device: torch.device | None = None
) -> Tensor:
    """P(t <= i) when a share of the timesteps falls in a normal bump and the rest evenly: (T,), float64.

    The loss is not corrected for it: timesteps drawn more often weigh more.
    """
    middle = (torch.arange(num_train_timesteps, dtype=torch.float64) + 0.5) / num_train_timesteps
    bump = torch.exp(-((middle - center) ** 2) / (2 * width**2))
    found = torch.cumsum(share * bump / bump.sum() + (1 - share) / num_train_timesteps, dim=0)
    return found.to(device, non_blocking=True)
