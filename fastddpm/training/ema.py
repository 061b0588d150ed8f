"""The weights that are saved: an exponential moving average of those that are trained."""

import copy
from typing import Any

import torch
from torch import nn


class EMA:
    """Averages parameters and floating buffers (BatchNorm's statistics among them) in float32; copies integer buffers.

    `model` is a full copy of the trained one, in eval mode: it samples, evaluates and is what is saved. The decay is
    warmed up as min(decay, (1 + n) / (10 + n)) after n updates.
    """

    def __init__(self, trained: nn.Module, decay: float):
        self.model: Any = copy.deepcopy(trained).eval()  # asks for gradients: autocast casts such weights once a draw
        self.decay = decay
        self.name = f"ema-{decay:g}"
        averaged = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        current = {**dict(trained.named_parameters()), **dict(trained.named_buffers())}
        self._floating = [name for name, tensor in averaged.items() if tensor.is_floating_point()]
        self._whole = [name for name, tensor in averaged.items() if not tensor.is_floating_point()]
        self._averaged, self._current = averaged, current

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Move towards the trained weights.

        Args:
            num_updates: n, updates made before this one: the optimizer step's number.
        """
        decay = min(self.decay, (1 + num_updates) / (10 + num_updates))
        torch._foreach_lerp_(
            [self._averaged[name] for name in self._floating],
            [self._current[name].detach() for name in self._floating],
            1 - decay,
        )
        if self._whole:
            torch._foreach_copy_([self._averaged[n] for n in self._whole], [self._current[n] for n in self._whole])
