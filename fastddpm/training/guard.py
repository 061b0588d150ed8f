"""Steps that would do harm: gradients that are no numbers, and spikes. What decides lies on the device, the same on all
ranks; it is read when a row of metrics.jsonl is due."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from fastddpm.config import TrainConfig

REMEMBERED = 16
"""number of incidents that are named between two rows, the newest"""
DECAY, WARM_UP = 0.98, 20
"""decay of the running mean of log gradient norms, and steps until it is believed"""
GRADIENT, LOSS, SPIKE = 1, 2, 3
REASONS = {LOSS: "the loss is not finite", GRADIENT: "a gradient is not finite", SPIKE: "a spike of the gradient norm"}


@dataclass(frozen=True)
class Incident:
    """A step that was not as others."""

    step: int
    """counted from 1"""
    reason: str
    skipped: bool
    """the weights were left as they were"""


class Guard:
    """Looks at each step's losses and gradient norm, on the device.

    Raises: ValueError: spikes are to be left out, but fp16's loss scaler decides which steps are.
    """

    def __init__(self, config: TrainConfig, accelerator: Accelerator):
        if config.on_spike == "skip" and accelerator.scaler is not None:
            raise ValueError(
                "train.on_spike is skip, but with fp16 the loss scaler decides which steps are left out; use "
                "--train.on_spike log, or --train.mixed_precision bf16"
            )
        self._config, self._accelerator = config, accelerator
        device = accelerator.device
        self.mean = torch.zeros(2, dtype=torch.float64, device=device)
        """running mean of log norms; steps that it is of"""
        self.in_a_row = torch.zeros((), dtype=torch.int64, device=device)
        """newest steps without a number"""
        self._count = torch.zeros((), dtype=torch.int64, device=device)
        self._last = torch.zeros(2, REMEMBERED, dtype=torch.int64, device=device)  # steps; reasons

    def look(self, step: int, losses_are_finite: Tensor, grad_norm: Tensor) -> Tensor:
        """Decide for a step that is about to be taken to leave it out or not; every rank calls it.

        Args:
            step: counted from 1.
            losses_are_finite: (), bool, of this rank's images.
            grad_norm: of all ranks' gradient.
        Returns: (), float32: 1 to leave it out, else 0.
        """
        norm = grad_norm.double()
        reason = torch.where(torch.isfinite(norm), 0, GRADIENT)
        reason = torch.where(losses_are_finite, reason, LOSS)
        if self._accelerator.num_processes > 1:  # a rank may see what others do not
            torch.distributed.all_reduce(reason, op=torch.distributed.ReduceOp.MAX)
        is_bad = reason > 0
        usual, seen = self.mean
        if self._config.on_spike != "ignore":
            limit = usual + math.log(self._config.spike_factor)
            is_spike = (seen >= WARM_UP) & (norm.log() > limit) & ~is_bad
            reason = torch.where(is_spike, SPIKE, reason)
        overflows = self._accelerator.scaler is not None  # which tries larger factors until they do, and halves them
        self._note(step, torch.where(reason == GRADIENT, 0, reason) if overflows else reason)
        self.in_a_row.copy_(torch.where(is_bad, self.in_a_row + 1, 0))
        is_usual = reason == 0
        share = torch.where(seen > 0, 1 - DECAY, 1.0)
        log_norm = torch.where(is_usual, norm.clamp_min(1e-30).log(), usual)
        self.mean.copy_(torch.stack([usual + share * (log_norm - usual), seen + is_usual]))
        skips_spikes = self._config.on_spike == "skip"
        return (is_bad | ((reason == SPIKE) & skips_spikes)).float()

    def _note(self, step: int, reason: Tensor) -> None:
        """Remember a step that has a reason."""
        slot = (self._count % REMEMBERED).reshape(1)
        here = torch.stack([torch.full_like(reason, step), reason]).to(torch.int64)[:, None]
        kept = self._last.index_select(1, slot)
        self._last.index_copy_(1, slot, torch.where(reason > 0, here, kept))
        self._count += reason > 0

    def read_and_reset(self) -> tuple[int, list[Incident], int]:
        """Number of incidents since the last call, the newest of them, and how many newest steps in a row had no
        number. Reads the device."""
        count, in_a_row = int(self._count), int(self.in_a_row)
        steps, reasons = self._last.tolist()
        self._count.zero_()
        found = sorted(zip(steps, reasons, strict=True))[-min(count, REMEMBERED) :] if count else []
        self._last.zero_()
        skips = self._config.on_spike == "skip"
        return count, [Incident(s, REASONS[r], r != SPIKE or skips) for s, r in found if s], in_a_row

    def row(self) -> dict[str, Any]:
        """State that a checkpoint keeps: plain JSON values, exact."""
        named = {"count": int(self._count), "last": self._last.tolist()}  # since the last row
        return {"mean": self.mean.tolist(), "in_a_row": int(self.in_a_row), **named}

    def take(self, row: dict[str, Any]) -> None:
        """Take over what a checkpoint kept."""
        self.mean.copy_(torch.tensor(row["mean"], dtype=torch.float64))
        self.in_a_row.fill_(row["in_a_row"])
        self._count.fill_(row["count"])
        self._last.copy_(torch.tensor(row["last"]))


@torch.no_grad()
def keep_if(skip: Tensor, now: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """Put tensors back as they were before, if a step is left out: BatchNorm's statistics have seen it already."""
    for tensor, old in zip(now, before, strict=True):
        tensor.copy_(torch.where(skip > 0, old, tensor))
