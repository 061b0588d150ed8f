"""What a run of the baseline is: the data settings of a DDPM run, and those of a DCGAN."""

import math
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fastddpm.config.checks import check_data
from fastddpm.config.settings import DataConfig

_STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DCGANTrainConfig:
    """Networks and training; the defaults are those of Radford et al. 2016."""

    num_images_seen: int = 200_000
    """real images, rounded up to whole batches"""
    batch_size: int = 128
    """global: the real images of one step over all processes; as many are drawn"""
    latent_dim: int = 100
    """numbers that an image is made of"""
    width: int = 64
    """channels next to the image; doubled at each level"""
    learning_rate: float = 2e-4
    """of both networks"""
    adam_betas: tuple[float, float] = (0.5, 0.999)
    """of both"""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """auto: bf16 where the device is faster in it, else no"""
    num_processes: int | None = None
    """refuse to start with another number of processes; null: take what the launcher gives"""
    num_threads: int | None = None
    """CPU threads of a process; null: this machine's cores, shared among its processes"""
    log_every: int = 50
    """steps between rows of metrics.jsonl"""
    checkpoint_every: int = 1000
    """steps between checkpoints; 0: only the last"""
    keep_checkpoints: int = 2
    """the newest checkpoints that stay"""

    @property
    def micro_batch_size(self) -> None:
        """A process's part of a batch is one micro-batch: BatchNorm needs it whole."""
        return None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DCGANConfig:
    """One experiment."""

    output_dir: str
    """the run folder; `runs/<name of the config>` when a config file is given"""
    seed: int = 0
    """of every random draw of the run"""
    num_samples: int = 64
    """in samples.png"""
    data: DataConfig = DataConfig()
    train: DCGANTrainConfig = DCGANTrainConfig()

    def __post_init__(self) -> None:
        check_data(self.data)
        train = self.train
        counts = {
            name: getattr(train, name) for name in ("num_images_seen", "batch_size", "latent_dim", "width", "log_every")
        }
        for name, value in {**counts, "keep_checkpoints": train.keep_checkpoints}.items():
            if value < 1:
                raise ValueError(f"train.{name} is {value}; it must be at least 1")
        if self.num_samples < 1 or self.seed < 0 or train.checkpoint_every < 0:
            raise ValueError("num_samples must be at least 1, seed and train.checkpoint_every at least 0")
        if not (math.isfinite(train.learning_rate) and train.learning_rate >= 0):
            raise ValueError(f"train.learning_rate is {train.learning_rate}; it must be finite and not negative")
