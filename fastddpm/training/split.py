"""Split of a step's batch into micro-batches, and those of each rank."""

from dataclasses import dataclass
from typing import Any

import torch


def micro_batch_sizes(batch_size: int, world_size: int) -> list[int]:
    """The divisors of a batch that leave every process a micro-batch, from the largest to 1."""
    return [
        size for size in range(batch_size, 0, -1) if batch_size % size == 0 and batch_size // size >= world_size
    ] or [1]


@dataclass(frozen=True)
class Split:
    """Micro-batches of a step, dealt to the ranks: neighbours to one rank, counts differ by at most one."""

    batch_size: int
    micro_batch_size: int
    rank: int
    world_size: int

    @classmethod
    def of(cls, config: Any, rank: int, world_size: int) -> "Split":
        """Raises: ValueError: sizes that do not divide, or more processes than micro-batches."""
        micro = config.micro_batch_size
        if micro == "auto":  # for now: what fits is found when the network is there
            micro = micro_batch_sizes(config.batch_size, world_size)[0]
        if micro is None:
            if config.batch_size % world_size:
                raise ValueError(
                    f"train.batch_size ({config.batch_size}) is no multiple of the {world_size} processes; "
                    f"use --train.batch_size {max(1, config.batch_size // world_size) * world_size}, "
                    f"or set train.micro_batch_size"
                )
            micro = config.batch_size // world_size
        if world_size > config.batch_size // micro:
            raise ValueError(
                f"{world_size} processes share {config.batch_size // micro} micro-batches (train.batch_size "
                f"{config.batch_size} / train.micro_batch_size {micro}); use a smaller micro_batch_size, "
                f"a larger batch_size or fewer processes"
            )
        if getattr(config, "determinism", None) == "elastic" and world_size & (world_size - 1):
            raise ValueError(
                f"train.determinism elastic adds micro-batches pairwise and wants 1, 2, 4, ... processes, got "
                f"{world_size}; use one of these numbers, or another train.determinism"
            )
        return cls(config.batch_size, micro, rank, world_size)

    @property
    def num_micro_batches(self) -> int:
        """M, of a step over all ranks."""
        return self.batch_size // self.micro_batch_size

    @property
    def loss_scale(self) -> float:
        """Factor on a micro-batch's mean loss, so that DDP's mean over ranks is the mean over the batch."""
        return self.world_size / self.num_micro_batches

    def positions(self, step: int) -> list[torch.Tensor]:
        """Micro-batches of this rank in a step: the places of their images in the run's global sequence, int64."""
        first = step * self.batch_size
        return [
            torch.arange(first + m * self.micro_batch_size, first + (m + 1) * self.micro_batch_size)
            for m in range(*(self.num_micro_batches * rank // self.world_size for rank in (self.rank, self.rank + 1)))
        ]
