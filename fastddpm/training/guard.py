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
MOST_WAITING = 4096
"""steps after which the device is read although no row is due"""
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
        self._at_once = config.on_spike == "skip"  # else what was seen waits on the device until it is asked for
        device = accelerator.device if self._at_once else torch.device("cpu")
        self._seen: list[tuple[int, Tensor]] = []
        self.mean = torch.zeros(2, dtype=torch.float64, device=device)
        """running mean of log norms; steps that it is of"""
        self.in_a_row = torch.zeros((), dtype=torch.int64, device=device)
        """newest steps without a number"""
        self._count = torch.zeros((), dtype=torch.int64, device=device)
        self._last = torch.zeros(2, REMEMBERED, dtype=torch.int64, device=device)  # steps; reasons

    def look(self, step: int, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """Decide for a step that is about to be taken to leave it out or not; every rank calls it.

        Args:
            step: counted from 1.
            loss: (), float32, finite if the losses of this rank's images are.
            grad_norm: of all ranks' gradient.
        Returns: (), float32: 1 to leave it out, else 0.
        """
        seen = torch.stack([grad_norm.float(), loss])
        if self._accelerator.num_processes > 1:  # a rank may see what others do not
            torch.distributed.all_reduce(seen[1])
        if self._at_once:
            return self._judge(step, seen)
        self._seen.append((step, seen))
        if len(self._seen) == MOST_WAITING:
            self._catch_up()
        return (seen.sum() * 0).nan_to_num(nan=1.0)

    def _catch_up(self) -> None:
        """Judge what waits, on the host, as it would have been on the device."""
        waiting, self._seen = self._seen, []
        if waiting:
            for (step, _), seen in zip(waiting, torch.stack([seen for _, seen in waiting]).cpu(), strict=True):
                self._judge(step, seen)

    def _judge(self, step: int, seen: Tensor) -> Tensor:
        norm = seen[0].double()
        reason = torch.where(torch.isfinite(norm), 0, GRADIENT)
        reason = torch.where(torch.isfinite(seen[1]), reason, LOSS)
        is_bad = reason > 0
        usual, num_seen = self.mean
        if self._config.on_spike != "ignore":
            limit = usual + math.log(self._config.spike_factor)
            is_spike = (num_seen >= WARM_UP) & (norm.log() > limit) & ~is_bad
            reason = torch.where(is_spike, SPIKE, reason)
        overflows = self._accelerator.scaler is not None  # which tries larger factors until they do, and halves them
        self._note(step, torch.where(reason == GRADIENT, 0, reason) if overflows else reason)
        self.in_a_row.copy_(torch.where(is_bad, self.in_a_row + 1, 0))
        is_usual = reason == 0
        share = torch.where(num_seen > 0, 1 - DECAY, 1.0)
        log_norm = torch.where(is_usual, norm.clamp_min(1e-30).log(), usual)
        self.mean.copy_(torch.stack([usual + share * (log_norm - usual), num_seen + is_usual]))
        return (is_bad | ((reason == SPIKE) & self._at_once)).float()

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
        self._catch_up()
        count, in_a_row = int(self._count), int(self.in_a_row)
        steps, reasons = self._last.tolist()
        self._count.zero_()
        found = sorted(zip(steps, reasons, strict=True))[-min(count, REMEMBERED) :] if count else []
        self._last.zero_()
        return count, [Incident(s, REASONS[r], r != SPIKE or self._at_once) for s, r in found if s], in_a_row

    def row(self) -> dict[str, Any]:
        """State that a checkpoint keeps: plain JSON values, exact."""
        self._catch_up()
        named = {"count": int(self._count), "last": self._last.tolist()}  # since the last row
        return {"mean": self.mean.tolist(), "in_a_row": int(self.in_a_row), **named}

    def take(self, row: dict[str, Any]) -> None:
        """Take over what a checkpoint kept."""
        self._seen.clear()
        self.mean.copy_(torch.tensor(row["mean"], dtype=torch.float64))
        self.in_a_row.fill_(row["in_a_row"])
        self._count.fill_(row["count"])
        self._last.copy_(torch.tensor(row["last"]))


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Copy of all elements of at least one tensor, (n,)."""
    return torch.cat([tensor.flatten() for tensor in tensors])


@torch.no_grad()
def keep_if(skip: Tensor, now: list[Tensor], before: Tensor) -> None:
    """Put tensors back as they were `before`, (n,), if a step is left out: BatchNorm's statistics have seen it."""
    parts = torch.where(skip > 0, before, flat(now)).split([tensor.numel() for tensor in now])
    torch._foreach_copy_(now, [part.view_as(tensor) for part, tensor in zip(parts, now, strict=True)])
