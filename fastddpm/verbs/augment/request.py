"""What `fastddpm augment` is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fastddpm.verbs.sample.series import Request

Mode = Literal["variations", "cutmix", "samples"]
Starts = tuple[int, ...] | range
"""start timesteps: each of these, or one of a range for each image"""


@dataclass(frozen=True, kw_only=True)
class AugmentRequest(Request):
    """Each field is an option of the command line, where it has its meaning; `figure` and `class_label` stay unset."""

    data: str
    mode: Mode = "variations"
    num_per_image: int = 1
    start_timesteps: Starts = (300,)
    balance: bool = False
    any_class: bool = False
    alpha: float = 1.0
    judge: Path | None = None
    drop_copies: bool = False
    split: str | None = None
    subset: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    resize: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_counts("num_per_image")
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode is {self.mode!r}; use {', '.join(get_args(Mode))}")
        if self.figure is not None or self.class_label is not None:
            raise ValueError("augment draws its own contact sheet, and takes labels from the data: leave figure and "
                             "class_label out")  # fmt: skip
        if not self.alpha > 0:
            raise ValueError(f"alpha is {self.alpha}; it must be above 0 (1: every share of the box is as likely)")
        self._check_starts()
        self._check_classes()

    def _check_starts(self) -> None:
        starts = self.start_timesteps
        if not starts or min(starts) < 1 or len(set(starts)) < len(starts):
            raise ValueError(
                f"start_timesteps is {as_text(starts)!r}; wanted different numbers of denoising steps from 1 on (0 "
                "would copy the source), such as 100,300, or a range, such as 100:500"
            )

    def _check_classes(self) -> None:
        if self.any_class and self.mode == "samples":
            raise ValueError("mode is 'samples', each of a class, and any_class is given; leave one of them out")
        if self.guidance_scale != 1.0 and (self.mode == "cutmix" or self.any_class):
            raise ValueError(
                f"guidance_scale is {self.guidance_scale}, but these images are drawn for any class (blends always "
                "are, because they have two labels); leave guidance_scale out"
            )


def parse_starts(text: str) -> Starts:
    """`300`, `100,300` (each of them) or `100:500` (one of them for each image; both ends belong to it).

    Raises: ValueError: none of these.
    """
    try:
        if ":" in text:
            first, last = (int(word) for word in text.split(":"))
            return range(first, last + 1)
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise ValueError(
            f"start_timesteps is {text!r}; wanted a number, a list such as 100,300, or a range such as 100:500"
        ) from None


def as_text(starts: Starts) -> str:
    """What `parse_starts` reads."""
    return f"{starts.start}:{starts.stop - 1}" if isinstance(starts, range) else ",".join(map(str, starts))
