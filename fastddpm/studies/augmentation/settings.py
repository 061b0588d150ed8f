"""Settings of `fastddpm evaluate augmentation`: which labelled sets are enlarged, by what, and who learns from them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from fastddpm.config.bounded_types import Count, NotNegative, Part, Positive, Whole, strict
from fastddpm.config.checks import SamplerName

Two = Annotated[int, Field(ge=2)]
"""two or more"""

Settings = dict[str, Any]
"""dotted names of settings to values, as on the command line"""
Kind = Literal["own", "all"]
"""model that drew: the one that was trained on the labelled images alone, or the one of all images"""


@strict
class GainGenerators:
    """The models that draw: one for each labelled set, and one for all."""

    config: str
    """Training of the generators: a YAML file, or the name of a packaged one."""
    overrides: Settings
    """Settings that differ from that file's, for all generators."""
    of_all: Settings | None = None
    """Further settings of the generator trained without labels on all images that are not held out; null: there is no
    such generator, and no second table."""


@strict
class GainDrawing:
    """Images that are drawn of each labelled set. One start and number are the main ones, of which the tables are; the
    others make the plots."""

    mode: Literal["variations", "cutmix"] = "variations"
    """Variations of each image, or its blends with others, which have soft labels."""
    start_timestep: Count = 300
    """Main start timestep t: the paper's."""
    num_per_image: Count = 4
    """Main number K of images drawn from each image."""
    start_timesteps: tuple[Count, ...] = ()
    """Other start timesteps, with the main K."""
    nums_per_image: tuple[Count, ...] = ()
    """Other numbers K, at the main t."""
    max_drawn: Count | None = None
    """Maximum number of images that the other t and K may add to a labelled set; those that would add more are left out
    for it; null: none is."""
    any_class: bool = False
    """Draw variations without their class; the model of all images always does."""
    alpha: float = 1.0
    """Shape of the share of a blend: lambda ~ Beta(alpha, alpha)."""
    scheduler: SamplerName = "dpmsolver++"
    """Solver that draws the images."""
    num_inference_steps: Count = 10
    """Reverse steps of each image, at most as many as the smallest start timestep."""
    micro_batch_size: Count = 100
    """Images of one forward pass."""

    @property
    def main(self) -> tuple[int, int]:
        """t and K of the tables."""
        return self.start_timestep, self.num_per_image

    def points(self, size: int) -> list[tuple[int, int]]:
        """(t, K) of all that is measured with so many labelled images, the main ones first."""
        over_t = [(start, self.num_per_image) for start in self.start_timesteps]
        over_k = [(self.start_timestep, num) for num in self.nums_per_image]
        few = [(t, k) for t, k in (*over_t, *over_k) if self.max_drawn is None or size * k <= self.max_drawn]
        return list(dict.fromkeys([self.main, *few]))


@strict
class GainClassic:
    """Classic augmentation of an image, drawn anew each time it is used."""

    shift: NotNegative = 2.0
    """Maximum shift in each direction, in pixels."""
    rotation: NotNegative = 15.0
    """Maximum rotation either way, in degrees."""
    elastic: NotNegative = 1.0
    """Displacement of a point in pixels, root mean square (Simard et al. 2003)."""
    smoothness: Positive = 4.0
    """Width in pixels of the Gaussian that makes neighbours move alike."""


@strict
class GainClassifier:
    """Learner: a small convolutional network, equally long whatever it learns from."""

    num_steps: Count = 500
    """Optimizer steps, in every condition and at every size."""
    batch_size: Two = 32
    """Images of a step, in every condition."""
    share_drawn: Part = 0.5
    """Share of drawn images in a batch, where there are any; the others are reals."""
    learning_rate: NotNegative = 2e-3
    """Peak of a one-cycle schedule of AdamW."""
    width: Count = 16
    """Channels of the first convolution; the next ones have twice and four times as many."""


@strict
class GainConfig:
    """Measure whether augmentation pays: gain.html and gain.json, with intervals over seeds.

    A small classifier learns from (a) a few labelled images, (b) with classic augmentation, (c) with drawn ones beside
    them, (d) with both, always for as many steps, and is tested on held-out images. Started again, it goes on where it
    was.
    """

    output_dir: str
    """Folder of everything it makes; `runs/<name of the config>` when a config file is given."""
    title: str
    """Title of the report."""
    source: str
    """Labelled images, as data.source of training."""
    num_labelled: tuple[Two, ...]
    """Numbers of images whose labels are known; each is a column of the tables."""
    num_seeds: Two = 5
    """Number of repetitions, each with other labelled images, another generator and another classifier."""
    num_held_out: Count
    """Number of images that accuracy is measured on, the same ones throughout."""
    num_unlabelled: Count | None = None
    """Number of images that the labelled ones are drawn from, and that the model of all is trained on; null: all
    others."""
    seed: Whole = 0
    """Seed of every random draw."""
    num_threads: Count | None = None
    """CPU threads; null: all cores."""
    data: Settings
    """Further settings of the data section, such as image_size."""
    generator: GainGenerators
    drawing: GainDrawing
    classic: GainClassic = GainClassic()
    classifier: GainClassifier = GainClassifier()

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The models that draw."""
        return ("own",) if self.generator.of_all is None else ("own", "all")

    def __post_init__(self) -> None:
        sizes = self.num_labelled
        if not sizes or list(sizes) != sorted(set(sizes)):
            raise ValueError(f"num_labelled is {list(sizes)}; wanted different numbers in rising order, such as 50,200")
        if self.num_unlabelled is not None and self.num_unlabelled < max(sizes):
            raise ValueError(
                f"num_unlabelled is {self.num_unlabelled} and num_labelled goes up to {max(sizes)}, which are drawn "
                f"from those; raise it to at least that"
            )
