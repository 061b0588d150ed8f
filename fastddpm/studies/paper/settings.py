"""What a reproduction of the paper's figures is: images, time, two models, what is measured, and what counts as
holding."""

import math
import re
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
_UNITS = {"s": 1, "m": 60, "h": 3600}

LEAST_JUDGING = 40
"""held-out images that train the judge"""
_LEAST = {"resamples": 20, "num_samples": 4, "num_from_data": 4, "num_variations": 2, "num_inputs": 5, "num_blends": 2}

Settings = dict[str, Any]
"""dotted names of settings to values, as on the command line"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ReproducedDDPM:
    """The paper's model."""

    config: str
    """its training: a YAML file, or the name of a packaged one"""
    overrides: Settings
    """settings that differ from that file's"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ReproducedDCGAN:
    """What it is compared with."""

    config: str
    """its training: a YAML file, or the name of a packaged one"""
    settings: dict[str, Settings]
    """a name for each way to train it, and what it changes; each is tried"""
    trial: float = 0.1
    """share of the budget that each is tried for; the best one then goes on to the whole budget"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MeasureConfig:
    """How much is drawn, and how."""

    num_reals: int
    """held-out images that scores compare with; some of them are the inputs of variations and blends"""
    num_samples: int = 1000
    """of each model, for FID, KID, precision and recall"""
    num_from_data: int = 500
    """held-out images that are noised to the end of the chain and denoised (figures 3 and 5)"""
    num_inputs: int = 32
    """held-out images that are varied at each start timestep (figures 7 and 8)"""
    num_variations: int = 2
    """of each"""
    start_timesteps: tuple[int, ...] = (
        50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 550, 600, 650, 700, 750, 800, 850, 900, 950, 1000,
    )  # fmt: skip
    """denoising steps left to go; 0, the image itself, is always measured too"""
    num_blends: int = 100
    """pairs of held-out images that are blended (figure 9)"""
    num_inference_steps: int = 100
    """reverse steps of every image, at most as many as its start timestep"""
    num_judged: int = 1000
    """labelled held-out images that only test the judge"""
    judge_epochs: int = 10
    """passes over the labelled held-out images that train the judge"""
    judge_steps: int = 800
    """steps that train it where there are no labels"""
    resamples: int = 200
    """of the bootstrap"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClaimsConfig:
    """What counts as holding; written down before anything was measured."""

    near_floors: float = 3.0
    """figures 3 and 5: samples are near the data if FID is at most so many times that of real images"""
    widest_interval: float = 0.2
    """figures 3, 5 and 7: images are unrelated if the 95 % interval of their distance over that of random pairs holds
    or exceeds 1; an interval wider than this would reach it by ignorance and tells nothing"""
    least_correlation: float = 0.9
    """figure 8: Spearman's, of start timestep and distance to the input, at least"""
    similar: float = 0.5
    """figure 8: at 300, the distance to the input over that of random pairs, at most; and, of the first start, what the
    features must see for any image to be called unrelated"""
    differing: float = 0.05
    """figure 8: at 300, the distance of variations to each other over that of random pairs, at least"""
    seam: float = 0.2
    """figure 9: after denoising, the step across the seam exceeds the ordinary one by at most this share, and steps
    elsewhere lose at most this share"""
    own_part: float = 0.95
    """figure 9: share of other images that each part of a blend is further from than from its own source, at least"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ReproductionConfig:
    """One reproduction."""

    output_dir: str
    """the folder of everything it makes; `runs/<name of the config>` when a config file is given"""
    title: str
    """of the report"""
    figure_from_data: int
    """the paper's number of the figure of held-out images noised to the end and denoised"""
    figure_of_dcgan: int
    """and of the DCGAN's"""
    source: str
    """the images, as data.source of training"""
    budget: str | int = "60m"
    """training time of each model, such as 90s, 60m or 2h, turned into a number of images by a short measurement"""
    seed: int = 0
    """of every random draw"""
    features: str | None = None
    """a TorchScript file that makes (B, D) features of (B, 3, H, W) uint8, such as an Inception network; null: a small
    network is trained on held-out images: to tell their classes, or without labels, to tell them from each other"""
    num_threads: int | None = None
    """CPU threads of a process; null: this machine's cores, shared among its processes"""
    data: Settings
    """settings of the data section for both models"""
    ddpm: ReproducedDDPM
    dcgan: ReproducedDCGAN
    measure: MeasureConfig
    claims: ClaimsConfig = ClaimsConfig()

    def __post_init__(self) -> None:
        _ = self.budget_seconds
        measure = self.measure
        for name, value in vars(measure).items():
            least = _LEAST.get(name, 1)
            if isinstance(value, int) and value < least:
                raise ValueError(f"measure.{name} is {value}; it must be at least {least}")
        most = max(measure.num_from_data, measure.num_inputs, 2 * measure.num_blends)
        if most > measure.num_reals:
            raise ValueError(
                f"measure.num_reals is {measure.num_reals}, but num_from_data, num_inputs or twice num_blends want "
                f"{most} held-out images; raise it to that"
            )
        scored = max(measure.num_samples, measure.num_from_data)
        if measure.num_reals < 2 * scored:
            raise ValueError(
                f"measure.num_reals is {measure.num_reals} and {scored} images are scored; the control of a score is "
                f"that of as many reals against the others: wanted at least {2 * scored} reals"
            )
        starts = measure.start_timesteps
        whole = len(set(starts)) == len(starts) and min(starts) >= 1 and max(starts) <= 1000
        if not {300, 1000} <= set(starts) or not whole:
            raise ValueError(
                f"measure.start_timesteps is {list(starts)}; wanted numbers from 1 to 1000, each once, among them 300 "
                f"and 1000, of which figures 7 and 8 are"
            )
        if not self.dcgan.settings or not 0 < self.dcgan.trial <= 1:
            raise ValueError("dcgan.settings must name at least one, and dcgan.trial be above 0 and at most 1")
        least = measure.num_reals + LEAST_JUDGING
        if self.data.get("num_held_out", 0) < least:
            raise ValueError(
                f"data.num_held_out is {self.data.get('num_held_out', 0)}; wanted at least {least}: measure.num_reals "
                f"({measure.num_reals}) and {LEAST_JUDGING} others, which train the judge"
            )

    @property
    def budget_seconds(self) -> float:
        """Raises: ValueError: no time."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", str(self.budget).strip())
        seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
        if not found or not 0 < seconds < math.inf:
            raise ValueError(f"budget is {self.budget!r}; wanted a time such as 90s, 60m or 2h")
        return seconds
