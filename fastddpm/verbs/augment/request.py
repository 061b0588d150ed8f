"""Request of `fastddpm augment`."""

import re
from typing import Literal

from fastddpm.config.bounded_types import Count, File, Positive, Several, strict
from fastddpm.verbs.sample.request import Drawing

Mode = Literal["variations", "cutmix", "samples"]
Starts = tuple[int, ...] | range
"""start timesteps: each of these, or one of a range for each image"""


@strict
class AugmentRequest(Drawing):
    """Draw new labelled images from labelled images, filter them, and write class folders or Parquet, with the story of
    each image, the counts and a contact sheet. Started again, it goes on where it was."""

    data: str
    """Labelled images: any data.source with labels, or rows of one; or RUN:train, RUN:held_out."""
    out: File
    """Folder, for class folders, or a .parquet file."""
    mode: Mode = "variations"
    """Variations of each image; its blends with others, with soft labels; or samples of its class."""
    num_images: Count = 1
    """Number of new images from each image and start timestep."""
    start_timesteps: Several[Count] | str = (300,)
    """Denoising steps left to go: each of these, or one of a range for each image, such as 100:500 (both ends belong
    to it)."""
    balance: bool = False
    """Draw as many of each class as the largest one gets."""
    any_class: bool = False
    """Draw variations without their class."""
    alpha: Positive = 1.0
    """Shape of the share of a blend: lambda ~ Beta(alpha, alpha)."""
    judge: File | None = None
    """Classifier, a file of `fastddpm judge`: drop what it gives another label."""
    drop_copies: bool = False
    """Drop near-copies of training images and of the data."""
    split: str | None = None
    """Split of data with several; null: train."""
    subset: str | None = None
    """Part of a data set for `datasets` that has several."""
    image_column: str | None = None
    """Column of a table that holds the images; null: the only one that does."""
    label_column: str | None = None
    """Column of a table that holds the classes; null: the only one that does."""

    def __post_init__(self) -> None:
        starts = self.starts
        if not starts or min(starts) < 1 or len(set(starts)) < len(starts):
            raise ValueError(
                f"start_timesteps is {self.start_timesteps}; wanted different numbers of denoising steps from 1 on (0 "
                "would copy the source), such as 100 300, or a range, such as 100:500"
            )
        if self.any_class and self.mode == "samples":
            raise ValueError("mode is 'samples', each of a class, and any_class is given; leave one of them out")
        if self.guidance_scale not in (None, 1.0) and (self.mode == "cutmix" or self.any_class):
            raise ValueError(
                f"guidance_scale is {self.guidance_scale}, but these images are drawn for any class (blends always "
                "are, because they have two labels); leave guidance_scale out"
            )

    @property
    def starts(self) -> Starts:
        """`start_timesteps` as numbers."""
        if isinstance(self.start_timesteps, tuple):
            return self.start_timesteps
        found = re.fullmatch(r"(\d+):(\d+)", self.start_timesteps)
        return range(int(found[1]), int(found[2]) + 1) if found else ()
