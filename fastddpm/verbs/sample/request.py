"""Requests of `fastddpm sample`, `vary` and `cutmix`; `augment` has the first part too."""

from typing import Literal

from fastddpm.config.bounded_types import ClassLabel, Count, File, Positive, Several, Whole, strict
from fastddpm.config.checks import SamplerName
from fastddpm.config.early_checks import check_installed


@strict
class Processes:
    """Processes, and what each computes at once."""

    micro_batch_size: Count = 64
    """Images of one forward pass."""
    num_processes: Count | None = None
    """Number of processes without which the verb refuses to start; null: what the launcher gives."""
    num_threads: Count | None = None
    """CPU threads of a process; null: its share of the cores."""


@strict
class Sampling(Processes):
    """Sampling of a model's images."""

    guidance_scale: float | None = None
    """Guidance towards the class; 1: none; above: further from what is drawn without a label; null: the run's own."""
    scheduler: SamplerName | None = None
    """Solver: ddpm is the paper's; ddim, dpmsolver++ and unipc need fewer steps and no noise; null: the run's own."""
    num_inference_steps: Count | None = None
    """Reverse steps of an image; null: the run's own, with another scheduler than its own all of them."""


@strict
class Drawing(Sampling):
    """Drawing of images from a model, and its place."""

    model: str
    """Run folder (also one still training), saved pipeline, or id on the Hub."""
    out: File
    """Folder (one PNG per image, and metadata.jsonl), or file: .npz, .parquet, or .png (one grid)."""
    seed: Whole = 0
    """Seed of the first image; the next ones follow."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the network; auto: what the launcher asks for, else fp32, whose bits are those of the pipelines."""
    compile: bool = False
    """Compile the network with torch.compile; the bits differ from those without."""

    def check_seeds(self, num_images: int) -> None:
        """Raises: ValueError: `num_images` seeds from `seed` on are not all of 63 bits."""
        if self.seed + num_images > 2**63:
            raise ValueError(f"seed is {self.seed}; seeds must be integers from 0 to 2^63 - 1")


@strict
class PicturedDrawing(Drawing):
    """Drawing of one class or of any, and a figure of all."""

    class_label: ClassLabel | None = None
    """Class of all images, by name or number; none, or null: any class."""
    figure: File | None = None
    """Picture of all images in one, a .png file beside `out`."""
    shard_size: Count | None = None
    """Make `out` a folder of Parquet files of this many images, each whole once it is drawn."""

    def __post_init__(self) -> None:
        if self.shard_size is not None:
            self._check_shards(self.shard_size)
        if self.figure is not None and self.figure.suffix.lower() != ".png":
            raise ValueError(f"--figure is {self.figure}; wanted a file that ends in .png")
        if self.figure is not None and self.out.suffix.lower() == ".png":
            raise ValueError(f"--out {self.out} is a picture of all already; leave --figure out")

    def _check_shards(self, size: int) -> None:
        if self.out.suffix.lower() in (".npz", ".parquet", ".png"):
            raise ValueError(f"--out is {self.out}, one file; with --shard_size wanted a folder, for Parquet files")
        if over := size % self.micro_batch_size:
            fits = max(size - over, self.micro_batch_size)
            raise ValueError(
                f"shard_size ({size}) must be a multiple of micro_batch_size ({self.micro_batch_size}); use "
                f"--shard_size {fits}"
            )
        check_installed("--shard_size", "datasets", "tables", ", or leave it out")


@strict
class SampleRequest(PicturedDrawing):
    """Draw new images from a run, on one process or on all of a launcher. Started again, it goes on where it was."""

    class_label: ClassLabel | None = None
    """Class of all images, by name or number; none: any class; null: each class in turn."""
    num_images: Count = 64
    """Number of images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_seeds(self.num_images)


@strict
class RenoisingRequest(PicturedDrawing):
    """Noising and denoising of images."""

    images: Several[str]
    """Image files, any data.source (a folder, zip, array, table, digits), or RUN:held_out; or rows: SOURCE#0:8."""
    start_timesteps: Several[Whole] = (300,)
    """Denoising steps left to go, one number or several; 0: the image itself; 1000: any image."""
    num_images: Count = 8
    """Number of new images from each input and start timestep."""
    shared_noise: bool = False
    """Noise each input once and copy it, as in the paper's figures."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.start_timesteps or len(set(self.start_timesteps)) < len(self.start_timesteps):
            raise ValueError(f"start_timesteps is {list(self.start_timesteps)}; give one or several, each once")


@strict
class VariationRequest(RenoisingRequest):
    """Noise images to a timestep and denoise them: the later it is, the less alike. Started again, it goes on."""

    class_label: ClassLabel | None = None
    """Class of all images, by name or number; none: any class; null: of each image its own, known by its source or told
    by the model."""


@strict
class BlendRequest(RenoisingRequest):
    """Paste a part of one image into another, noise and denoise it. Started again, it goes on where it was."""

    partners: Several[str] = ()
    """Images that a part is taken of: one for each image, or one for all; left out: for each blend another of the
    images."""
    box: tuple[Whole, Whole, Count, Count] | None = None
    """Part of the partner in pixels: top, left, height, width; null: as `mask` says, or drawn."""
    mask: File | None = None
    """Part of the partner as a black and white picture; white: the partner's."""
    alpha: Positive = 1.0
    """Shape of the share of a drawn box, where neither `box` nor `mask` is given: lambda ~ Beta(alpha, alpha)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.box is not None and self.mask is not None:
            raise ValueError("got both box and mask; give one of them, or neither, to have boxes drawn")
