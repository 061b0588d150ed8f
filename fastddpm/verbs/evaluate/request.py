"""Requests of `fastddpm evaluate` and `judge`."""

from fastddpm.config.bounded_types import Count, File, Whole, strict
from fastddpm.verbs.sample.request import Sampling


@strict
class EvaluationRequest(Sampling):
    """Score samples against real images: FID, KID, precision, recall and copies, with intervals, beside what real
    images get. `fastddpm evaluate augmentation` measures what augmentation gains a classifier; see its --help."""

    samples: str
    """Images to score: any data.source (a folder, .npz, ...), or a run, which is drawn from."""
    reals: str
    """Real images: any data.source; RUN:held_out and RUN:train are a run's own."""
    features: File
    """TorchScript file that makes (B, D) features of uint8 images, or a file of `fastddpm judge`."""
    out: File
    """Folder for evaluation.json and nearest.png."""
    training: str | None = None
    """Images to look for copies of, as `reals`; null: a run's own."""
    num_images: Count = 1_000
    """Maximum number of samples."""
    num_reals: Count = 10_000
    """Maximum number of real images."""
    resamples: Whole = 200
    """Resamples of the bootstrap; 0: no intervals."""
    seed: Whole = 0
    """Seed of choices, of intervals and of the first sample."""


@strict
class JudgeRequest:
    """Train a small network for `evaluate`, where features of photographs mean little: a classifier if there are
    labels, else one that learns without."""

    source: str
    """Images: any data.source; RUN:held_out and RUN:train are a run's own."""
    out: File
    """File for the network, .safetensors."""
    unlabelled: bool = False
    """Learn without labels, even where there are some."""
    num_images: Count = 20_000
    """Maximum number of images to train on."""
    num_tested: Count = 2_000
    """Number of other images that a classifier's accuracy is measured on."""
    epochs: Count = 5
    """Passes of a classifier over the images."""
    num_steps: Count = 800
    """Optimizer steps without labels."""
    seed: Whole = 0
    """Seed of choice and training."""
    num_threads: Count | None = None
    """CPU threads; null: all cores."""

    def __post_init__(self) -> None:
        if self.out.suffix != ".safetensors":
            raise ValueError(f"--out is {self.out}; wanted a file that ends in .safetensors")
