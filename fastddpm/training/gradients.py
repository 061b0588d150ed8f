"""Gradients of a step's micro-batches, on all ranks, made the batch's: by DDP, or in a fixed tree."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn

from fastddpm.config import TrainConfig
from fastddpm.training.split import Split

CHUNK = 1 << 24
"""numbers that are exchanged at once"""


class SummedGradients:
    """Each rank adds its micro-batches one after the other, and DDP takes the mean over the ranks: the fastest, and
    rounded as the number of ranks has it. Running statistics take each micro-batch in turn, and their mean over
    the ranks after each step.

    Every rank calls each method. `unet` is the network as Accelerate prepared it, `network` what is called for it; a
    micro-batch's mean loss is multiplied by `loss_scale`.
    """

    def __init__(self, unet: nn.Module, split: Split, accelerator: Accelerator):
        self._accelerator, self._buffers = accelerator, _floating_buffers(unet)
        with warnings.catch_warnings():  # Accelerate passes the older of its two names
            warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
            self.unet: Any = accelerator.prepare_model(unet, device_placement=False)
        self.network = self.unet
        self.loss_scale = split.loss_scale

    @contextlib.contextmanager
    def micro_batch(self, *, is_last: bool) -> Iterator[None]:
        """Around the forward and backward pass of a micro-batch of this rank."""
        with contextlib.nullcontext() if is_last else self._accelerator.no_sync(self.unet):
            yield

    def finish(self) -> None:
        """After the last micro-batch `.grad` is that of the mean over the batch, on all ranks: DDP has seen to it."""

    @torch.no_grad()
    def average_buffers(self) -> None:
        """Give all ranks the same statistics of BatchNorm, whose own ones are of its micro-batches."""
        if self._accelerator.num_processes == 1 or not self._buffers:
            return
        flat = self._accelerator.reduce(torch.cat([b.flatten() for b in self._buffers]), reduction="mean")
        for buffer, mean in zip(self._buffers, flat.split([b.numel() for b in self._buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))


class TreeGradients:
    """Micro-batches are added pairwise, in a tree over their place in the batch, whatever rank they are on: the same
    bits on any number of processes that is a power of two.

    A rank holds neighbours in the tree (see `Split.positions`), adds them as they come, and the ranks' sums are the
    tree's upper part. Running statistics: each micro-batch starts from those before the step, and the step's are the
    mean of what they become, so a step counts as one batch.
    """

    def __init__(self, unet: nn.Module, split: Split, accelerator: Accelerator):
        self._accelerator, self._split = accelerator, split
        self._parameters = [p for p in unet.parameters() if p.requires_grad]
        self._floating = _floating_buffers(unet)
        self._buffers = list(unet.buffers())
        # autocast without DDP; it is placed already: a process of several on a CPU would copy its buffers
        self.unet: Any = accelerator.prepare_model(unet, device_placement=False, evaluation_mode=True)
        self.network = self.unet
        self.loss_scale = 1.0
        self._sum = PairwiseSum()
        self._before: list[Tensor] = []
        if split.world_size > 1:
            for tensor in (*unet.parameters(), *self._buffers):
                dist.broadcast(tensor.detach(), 0)

    @contextlib.contextmanager
    def micro_batch(self, *, is_last: bool) -> Iterator[None]:
        self._before = [buffer.clone() for buffer in self._buffers]
        yield
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        self._sum.add([*gradients, *(buffer.clone() for buffer in self._floating)])
        if not is_last:
            for buffer, before in zip(self._buffers, self._before, strict=True):
                buffer.copy_(before)

    @torch.no_grad()
    def finish(self) -> None:
        mine = self._sum.take()
        flat = torch.cat([tensor.flatten() for tensor in mine])
        if self._split.world_size > 1:
            sum_over_ranks(flat, self._split.world_size)
        flat /= self._split.num_micro_batches  # a power of two: nothing is rounded
        parts = flat.split([tensor.numel() for tensor in mine])
        for parameter, part in zip(self._parameters, parts, strict=False):
            parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter))
        for buffer, part in zip(self._floating, parts[len(self._parameters) :], strict=True):
            buffer.copy_(part.view_as(buffer))

    def average_buffers(self) -> None:
        """`finish` has done it."""


Gradients = SummedGradients | TreeGradients


def gradients_of(unet: nn.Module, config: TrainConfig, split: Split, accelerator: Accelerator) -> Gradients:
    """Gradients as `train.determinism` asks."""
    made = (TreeGradients if config.determinism == "elastic" else SummedGradients)(unet, split, accelerator)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
    is_plain = not (config.compile or config.gradient_checkpointing) and split.world_size == 1  # DDP sends as it goes
    if dtype is not None and is_plain and accelerator.device.type == "cuda":
        made.network = CastTogether(made.unet, dtype)
    return made


class CastTogether:
    """A network whose weights are cast in one launch, and their gradients in one back: autocast takes two for each. The
    bits are autocast's."""

    def __init__(self, unet: nn.Module, dtype: torch.dtype):
        layers = [m for m in unet.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]  # autocast's own
        self._unet, self._dtype = unet, dtype
        self._places = [(m, name) for m in layers for name, weight in m._parameters.items() if weight is not None]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        weights: list[Any] = [module._parameters[name] for module, name in self._places]
        self._put(_Cast.apply(self._dtype, *weights))
        try:
            return self._unet(*args, **kwargs)
        finally:
            self._put(weights)

    def _put(self, weights: Sequence[Any]) -> None:
        for (module, name), weight in zip(self._places, weights, strict=True):
            module._parameters[name] = weight


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(_cast(list(weights), dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        cast = iter(_cast([gradient for gradient in gradients if gradient is not None], torch.float32))
        return None, *(None if gradient is None else next(cast) for gradient in gradients)


def _cast(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    made = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(made, tensors)
    return made


class PairwiseSum:
    """Adds 2^k lists of tensors, given one after the other, as the neighbours in a binary tree are; at most k + 1 lists
    are held at a time."""

    def __init__(self) -> None:
        self._partial: list[tuple[int, list[Tensor]]] = []  # (how many lists, their sum), falling in number

    @torch.no_grad()
    def add(self, tensors: Sequence[Tensor]) -> None:
        """The next list; its tensors are taken over, and may be written to."""
        count, total = 1, list(tensors)
        while self._partial and self._partial[-1][0] == count:
            _, left = self._partial.pop()
            torch._foreach_add_(left, total)
            count, total = 2 * count, left
        self._partial.append((count, total))

    def take(self) -> list[Tensor]:
        """The sum, and start anew.  Raises: ValueError: a number of lists that is no power of two."""
        if len(self._partial) != 1:
            raise ValueError(f"got {sum(n for n, _ in self._partial)} lists of tensors; a tree wants a power of two")
        ((_, total),) = self._partial
        self._partial = []
        return total


@torch.no_grad()
def sum_over_ranks(flat: Tensor, world_size: int) -> None:
    """Add a vector, (n,), over all ranks, a power of two, in place: neighbours first, then neighbours of those. Each
    rank adds a part of it, so that as many bytes are sent as by a ring."""
    for part in flat.split(CHUNK):
        size = -(-len(part) // world_size)
        padded = torch.nn.functional.pad(part, (0, size * world_size - len(part)))
        received = torch.empty_like(padded)
        dist.all_to_all_single(received, padded)
        rows = received.view(world_size, size)
        while len(rows) > 1:
            rows = rows[0::2] + rows[1::2]
        dist.all_gather(list(padded.view(world_size, size).unbind()), rows[0].contiguous())
        part.copy_(padded[: len(part)])


def _floating_buffers(unet: nn.Module) -> list[Tensor]:
    return [buffer for buffer in unet.buffers() if buffer.is_floating_point()]
