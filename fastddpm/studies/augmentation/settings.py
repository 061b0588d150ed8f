"""Settings of `fastddpm evaluate augmentation`: which labelled sets are enlarged, by what, and who learns from them."""

from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fastddpm.config.checks import SamplerName

_STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

Settings = dict[str, Any]
"""dotted names of settings to values, as on the command line"""
Kind = Literal["own", "all"]
"""which model drew: the one that was trained on the labelled images alone, or the one of all images"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class GainGenerators:
    """The models that draw: one for each labelled set, and one for all."""

    config: str
    """their training: a YAML file, or the name of a packaged one"""
    overrides: Settings
    """settings that differ from that file's, for all of them"""
    of_all: Settings | None = None
    """what else differs for the one that is trained on all images that are not held out, without labels; null: there is
    none, and no second table"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class GainDrawing:
    """What is drawn of each labelled set. One start and number are the main ones, of which the tables are; the others
    make the plots."""

    mode: Literal["variations", "cutmix"] = "variations"
    """variations of each image, or its blends with others, which have soft labels"""
    start_timestep: int = 300
    """t, the main one: the paper's"""
    num_per_image: int = 4
    """K, the main one"""
    start_timesteps: tuple[int, ...] = ()
    """others, with the main K"""
    nums_per_image: tuple[int, ...] = ()
    """others, at the main t"""
    max_drawn: int | None = None
    """but for the main ones, t and K that would enlarge a labelled set by more images than this are left out for it;
    null: none is"""
    any_class: bool = False
    """draw variations without their class; the model of all images always does"""
    alpha: float = 1.0
    """of blends: lambda ~ Beta(alpha, alpha)"""
    scheduler: SamplerName = "dpmsolver++"
    """draws them"""
    num_inference_steps: int = 10
    """reverse steps of each image, at most as many as the smallest start timestep"""
    micro_batch_size: int = 100
    """images of one forward pass"""

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


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class GainClassic:
    """What classic augmentation does to an image, drawn anew each time it is used."""

    shift: float = 2.0
    """pixels, up to so many in each direction"""
    rotation: float = 15.0
    """degrees, up to so many either way"""
    elastic: float = 1.0
    """pixels that a point is displaced by, root mean square (Simard et al. 2003)"""
    smoothness: float = 4.0
    """pixels, the width of the Gaussian that makes neighbours move alike"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class GainClassifier:
    """Who learns: a small convolutional network, equally long whatever it learns from."""

    num_steps: int = 500
    """optimizer steps, of every condition and size"""
    batch_size: int = 32
    """images of a step, of every condition"""
    share_drawn: float = 0.5
    """of a batch: drawn images, where there are any; the others are reals"""
    learning_rate: float = 2e-3
    """peak of a one-cycle schedule, of AdamW"""
    width: int = 16
    """channels of the first convolution; the next ones have twice and four times as many"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class GainConfig:
    """One measurement of what augmentation gains."""

    output_dir: str
    """the folder of everything it makes; `runs/<name of the config>` when a config file is given"""
    title: str
    """of the report"""
    source: str
    """labelled images, as data.source of training"""
    num_labelled: tuple[int, ...]
    """images whose labels are known: a column of the tables each"""
    num_seeds: int = 5
    """how often each is measured, each time with other labelled images, another generator, another classifier"""
    num_held_out: int
    """images that accuracy is measured on, the same ones throughout"""
    num_unlabelled: int | None = None
    """images that the labelled ones are drawn from, and that the model of all is trained on; null: all others"""
    seed: int = 0
    """of every random draw"""
    num_threads: int | None = None
    """CPU threads; null: all cores"""
    data: Settings
    """further settings of the data section, such as image_size"""
    generator: GainGenerators
    drawing: GainDrawing
    classic: GainClassic = GainClassic()
    classifier: GainClassifier = GainClassifier()

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The models that draw."""
        return ("own",) if self.generator.of_all is None else ("own", "all")

    def __post_init__(self) -> None:
        _check_counts(self)
        sizes = self.num_labelled
        if not sizes or list(sizes) != sorted(set(sizes)):
            raise ValueError(f"num_labelled is {list(sizes)}; wanted different numbers in rising order, such as 50,200")
        if self.num_unlabelled is not None and self.num_unlabelled < max(sizes):
            raise ValueError(
                f"num_unlabelled is {self.num_unlabelled} and num_labelled goes up to {max(sizes)}, which are drawn "
                f"from those; raise it to at least that"
            )
        if not 0 < self.classifier.share_drawn < 1:
            raise ValueError(f"classifier.share_drawn is {self.classifier.share_drawn}; it must be between 0 and 1")


def _check_counts(config: GainConfig) -> None:
    least = {"num_seeds": 2, "num_labelled": 2, "batch_size": 2}
    for prefix, owner in (("", config), ("drawing.", config.drawing), ("classifier.", config.classifier)):
        for name, value in vars(owner).items():
            numbers = value if isinstance(value, tuple) else (value,)
            wrong = [n for n in numbers if type(n) is int and n < (0 if name == "seed" else least.get(name, 1))]
            if wrong:
                raise ValueError(f"{prefix}{name} is {wrong[0]}; it must be at least {least.get(name, 1)}")
    for name, value in vars(config.classic).items():
        if value < 0 or (name == "smoothness" and value == 0):
            raise ValueError(
                f"classic.{name} is {value}; it must be {'above' if name == 'smoothness' else 'at least'} 0"
            )
