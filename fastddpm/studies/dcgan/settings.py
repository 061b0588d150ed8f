"""Settings of a run of the baseline: the data settings of a DDPM run, and those of a DCGAN."""

from typing import Literal

from fastddpm.config.bounded_types import Count, NotNegative, Whole, strict
from fastddpm.config.checks import check_data
from fastddpm.config.settings import DataConfig


@strict
class DCGANTrainConfig:
    """Networks and training; the defaults are those of Radford et al. 2016."""

    num_images_seen: Count = 200_000
    """Length of the run in real images, rounded up to whole batches."""
    batch_size: Count = 128
    """Real images of one step over all processes; as many are drawn."""
    latent_dim: Count = 100
    """Number of numbers that an image is made of."""
    width: Count = 64
    """Channels next to the image; doubled at each level."""
    learning_rate: NotNegative = 2e-4
    """Learning rate of both networks."""
    adam_betas: tuple[float, float] = (0.5, 0.999)
    """Betas of Adam, for both networks."""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Precision; auto: bf16 where the device is faster in it, fp16 on older NVIDIA GPUs, else no."""
    num_processes: Count | None = None
    """Number of processes without which the run refuses to start; null: what the launcher gives."""
    num_threads: Count | None = None
    """CPU threads of a process; null: this machine's cores, shared among its processes."""
    log_every: Count = 50
    """Steps between rows of metrics.jsonl."""
    checkpoint_every: Whole = 1000
    """Steps between checkpoints; 0: only the last."""
    keep_checkpoints: Count = 2
    """Number of checkpoints that stay, the newest."""

    @property
    def micro_batch_size(self) -> None:
        """A process's part of a batch is one micro-batch: BatchNorm needs it whole."""
        return None


@strict
class DCGANConfig:
    """Train a DCGAN, which the paper compares with, on the same data; go on where a run stopped, save, draw samples.

    `fastddpm sample` and `evaluate` take its folder as they take a DDPM's.
    """

    output_dir: str
    """Run folder; `runs/<name of the config>` when a config file is given."""
    seed: Whole = 0
    """Seed of every random draw of the run."""
    num_samples: Count = 64
    """Number of images in samples.png."""
    data: DataConfig = DataConfig()
    train: DCGANTrainConfig = DCGANTrainConfig()

    def __post_init__(self) -> None:
        check_data(self.data)
        if self.data.augment.is_on:
            raise ValueError(
                "data.augment is on, and a DCGAN cannot be told of it: it would draw shifted, turned and changed "
                "images; leave it out"
            )
