"""Settings of a reproduction of the paper's figures: images, time, two models, what is measured, what counts as
holding."""

import math
import re
from typing import Annotated, Any

from pydantic import Field

from fastddpm.config.bounded_types import Count, Whole, strict

_UNITS = {"s": 1, "m": 60, "h": 3600}

LEAST_JUDGING = 40
"""held-out images that train the judge"""

Settings = dict[str, Any]
"""dotted names of settings to values, as on the command line"""


@strict
class ReproducedDDPM:
    """The paper's model."""

    config: str
    """Training of the model: a YAML file, or the name of a packaged one."""
    overrides: Settings
    """Settings that differ from that file's."""


@strict
class ReproducedDCGAN:
    """Baseline that the model is compared with."""

    config: str
    """Training of the DCGAN: a YAML file, or the name of a packaged one."""
    settings: dict[str, Settings]
    """Ways to train it: a name for each, and what it changes; each is tried."""
    trial: float = 0.1
    """Share of the budget that each way is tried for; the best one then goes on to the whole budget."""


@strict
class MeasureConfig:
    """Number of images that are drawn, and their settings."""

    num_reals: Count
    """Number of held-out images that scores compare with; some of them are the inputs of variations and blends."""
    num_samples: Annotated[int, Field(ge=4)] = 1000
    """Number of samples of each model, for FID, KID, precision and recall."""
    num_from_data: Annotated[int, Field(ge=4)] = 500
    """Number of held-out images that are noised to the end of the chain and denoised (figures 3 and 5)."""
    num_inputs: Annotated[int, Field(ge=5)] = 32
    """Number of held-out images that are varied at each start timestep (figures 7 and 8)."""
    num_variations: Annotated[int, Field(ge=2)] = 2
    """Number of variations of each of these images."""
    start_timesteps: tuple[int, ...] = (
        50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 550, 600, 650, 700, 750, 800, 850, 900, 950, 1000,
    )  # fmt: skip
    """Denoising steps left to go; 0, the image itself, is always measured too."""
    num_blends: Annotated[int, Field(ge=2)] = 100
    """Number of pairs of held-out images that are blended (figure 9)."""
    num_inference_steps: Count = 100
    """Reverse steps of every image, at most as many as its start timestep."""
    num_judged: Count = 1000
    """Number of labelled held-out images that only test the judge."""
    judge_epochs: Count = 10
    """Passes over the labelled held-out images that train the judge."""
    judge_steps: Count = 800
    """Steps that train the judge where there are no labels."""
    resamples: Annotated[int, Field(ge=20)] = 200
    """Resamples of the bootstrap."""


@strict
class ClaimsConfig:
    """Limits that count as holding; written down before anything was measured."""

    near_floors: float = 3.0
    """Figures 3 and 5: most that FID may be, over that of real images, for samples to be near the data."""
    widest_interval: float = 0.2
    """Figures 3, 5 and 7: images are unrelated if the 95 % interval of their distance, over that of random pairs, holds
    or exceeds 1. An interval wider than this would reach it by ignorance and tells nothing."""
    least_correlation: float = 0.9
    """Figure 8: least rank correlation (Spearman) of start timestep and distance to the input."""
    similar: float = 0.5
    """Figure 8: largest distance to the input at 300, over that of random pairs; and what the features must see at the
    first start for any image to be called unrelated."""
    differing: float = 0.05
    """Figure 8: least distance of variations to each other at 300, over that of random pairs."""
    seam: float = 0.2
    """Figure 9: largest share by which the step across the seam exceeds the ordinary one after denoising, and by which
    steps elsewhere shrink."""
    own_part: float = 0.95
    """Figure 9: least share of other images that each part of a blend is further from than from its own source."""


@strict
class ReproductionConfig:
    """Train the paper's model and a DCGAN on your images, draw the paper's figures, and put a number, a control and a
    verdict beside each of its claims: report.html and report.json.

    Started again, it goes on where it was. NAME is mnist, colour64 or celeba64.
    """

    output_dir: str
    """Folder of everything it makes; `runs/<name of the config>` when a config file is given."""
    title: str
    """Title of the report."""
    figure_from_data: int
    """Number in the paper of the figure of held-out images noised to the end and denoised."""
    figure_of_dcgan: int
    """Number in the paper of the DCGAN's figure."""
    source: str
    """Images, as data.source of training."""
    budget: str | int = "60m"
    """Training time of each model, such as 90s, 60m or 2h, turned into a number of images by a short measurement."""
    seed: Whole = 0
    """Seed of every random draw."""
    features: str | None = None
    """TorchScript file that makes (B, D) features of (B, 3, H, W) uint8, such as an Inception network; null: a small
    network is trained on held-out images, to tell their classes, or without labels to tell them from each other."""
    num_threads: Count | None = None
    """CPU threads of a process; null: this machine's cores, shared among its processes."""
    data: Settings
    """Settings of the data section for both models."""
    ddpm: ReproducedDDPM
    dcgan: ReproducedDCGAN
    measure: MeasureConfig
    claims: ClaimsConfig = ClaimsConfig()

    def __post_init__(self) -> None:
        _ = self.budget_seconds
        measure = self.measure
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
    def bootstrap(self) -> dict[str, int]:
        """The way that intervals are found: arguments of `measures.similarity.estimate`."""
        return {"resamples": self.measure.resamples, "seed": self.seed}

    @property
    def budget_seconds(self) -> float:
        """Raises: ValueError: no time."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", str(self.budget).strip())
        seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
        if not found or not 0 < seconds < math.inf:
            raise ValueError(f"budget is {self.budget!r}; wanted a time such as 90s, 60m or 2h")
        return seconds
