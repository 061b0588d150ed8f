"""Fitting of a picture of any size to the network's, and the way back to a place in the picture.

All boxes are (top, left, height, width).
"""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from fastddpm.data.meaning import Meaning

BLACK = (0, 0, 0)


class Box(NamedTuple):
    """A rectangle, in pixels."""

    top: float
    left: float
    height: float
    width: float


@dataclass(frozen=True)
class Placement:
    """The part of a picture that the network sees, and its place there."""

    size: tuple[int, int]
    """(H, W) of the picture, upright, in its own pixels"""
    cut: Box
    """the part of it that is seen, in its own pixels"""
    shown: Box
    """place of that part, in the network's pixels; around it is padding"""

    @property
    def scale(self) -> tuple[float, float]:
        """Own pixels a pixel of the network, (down, across)."""
        return self.cut.height / self.shown.height, self.cut.width / self.shown.width

    @property
    def lost(self) -> float:
        """Share of the picture that is cut off."""
        return 1 - self.cut.height * self.cut.width / (self.size[0] * self.size[1])

    def part(self, window: Box) -> "Placement":
        """The same of a part of the network's picture."""
        top, left = max(window.top, self.shown.top), max(window.left, self.shown.left)
        bottom = min(window.top + window.height, self.shown.top + self.shown.height)
        right = min(window.left + window.width, self.shown.left + self.shown.width)
        shown = Box(top - window.top, left - window.left, max(0, bottom - top), max(0, right - left))
        down, across = self.scale
        first = (self.cut.top + (top - self.shown.top) * down, self.cut.left + (left - self.shown.left) * across)
        return Placement(self.size, Box(*first, shown.height * down, shown.width * across), shown)

    def box_in_picture(self, box: Box) -> Box | None:
        """The own pixels that a box in the network's pixels touches, in whole ones; None: it lies in the padding."""
        cut = self.part(box).cut
        if not cut.height or not cut.width:
            return None
        top, left = math.floor(cut.top + 1e-6), math.floor(cut.left + 1e-6)
        bottom, right = (math.ceil(end - 1e-6) for end in (cut.top + cut.height, cut.left + cut.width))
        return Box(top, left, bottom - top, right - left)

    def map_in_picture(self, values: np.ndarray) -> np.ndarray:
        """A map in the network's pixels, (H, W), as one in the picture's own, float32, linearly between them; NaN where
        the network does not see the picture."""
        found = np.full(self.size, np.nan, dtype=np.float32)
        top, left, height, width = (round(side) for side in self.shown)
        inside: list[np.ndarray] = []
        part = values[top : top + height, left : left + width].astype(np.float32)
        for first, length, scale in zip(self.cut[:2], self.cut[2:], self.scale, strict=True):
            own = np.arange(
                round(first), max(round(first) + 1, round(first + length))
            )  # at its middle is a pixel's value
            part, inside = _between(part, (own + 0.5 - first) / scale - 0.5).T, [*inside, own]
        found[np.ix_(*inside)] = part
        return found


@dataclass(frozen=True)
class Fit:
    """Shape and kind of pixels that every picture is made into."""

    channels: int
    """1 (colour becomes ITU-R 601 luma) or 3 (grayscale is repeated)"""
    size: tuple[int, int] | None = None
    """(H, W) in pixels, that a picture is scaled to (bicubic, antialiased); None: its own"""
    way: Literal["crop", "pad", "stretch"] = "crop"
    """to that size: the longer side cut at both ends; all of it, with bars beside it; or each side scaled on its own"""
    center_crop: int | None = None
    """side in pixels of the square that is cut out of the middle before that; None: all of it"""
    background: tuple[int, int, int] | None = None
    """colour that transparent pixels are laid on; None: they are refused. Also of the bars; None: black"""
    random_crop: int | None = None
    """side in pixels of the middle that is left at the end, as a network trained on random crops is shown; None: all"""
    is_settled: bool = False
    """a run decided all of this: what is wrong is mended in the picture, no setting helps"""
    meaning: Meaning = field(default_factory=Meaning)
    """meaning of the numbers in a picture's file"""

    def refusal(self, size: tuple[int, int]) -> str | None:
        """The reason why a picture of (width, height) is too small; None: it is not."""
        width, height = size
        if self.center_crop is not None and min(size) < self.center_crop:
            way_out = "give a larger one" if self.is_settled else "lower that"
            return f"is {width}x{height}, smaller than data.center_crop ({self.center_crop}): {way_out}"
        made = self.size or ((self.center_crop,) * 2 if self.center_crop else size)
        if self.random_crop is not None and min(made) < self.random_crop:
            return f"is {width}x{height}, smaller than what the model is shown ({self.random_crop}): give a larger one"
        return None

    def __call__(self, image: Image.Image) -> Image.Image:
        """Cut and scale a picture of mode L or RGB that is large enough."""
        if self.center_crop is not None:
            image = _middle(image, self.center_crop)
        if self.size is not None:
            image = self._scaled(image, *self.size)
        return image if self.random_crop is None else _middle(image, self.random_crop)

    def place(self, size: tuple[int, int]) -> Placement:
        """Place of a picture of (width, height)."""
        width, height = size
        rows, columns, seen = height, width, Box(0, 0, height, width)
        if self.center_crop is not None:
            rows = columns = self.center_crop
            seen = Box(*_margins(height, width, rows, columns), rows, columns)
        shown = Box(0, 0, rows, columns)
        if self.size is not None:
            if self.way == "crop":
                left, top, right, bottom = _of_aspect(columns, rows, self.size)
                seen = Box(seen.top + top, seen.left + left, bottom - top, right - left)
            shown = _inside(rows, columns, self.size) if self.way == "pad" else Box(0, 0, *self.size)
            rows, columns = self.size
        placed, side = Placement((height, width), seen, shown), self.random_crop
        return placed if side is None else placed.part(Box(*_margins(rows, columns, side, side), side, side))

    @property
    def in_words(self) -> str:
        """Change of a picture of another aspect, for people."""
        bars = "black" if self.background is None else f"the colour {list(self.background)}"
        return {"crop": "cut at the middle", "pad": f"padded with {bars}", "stretch": "each side by its own factor"}[
            self.way
        ]

    def _scaled(self, image: Image.Image, height: int, width: int) -> Image.Image:
        if self.way != "pad":
            box = _of_aspect(*image.size, (height, width)) if self.way == "crop" else None
            return image.resize((width, height), Image.Resampling.BICUBIC, box=box)
        top, left, tall, wide = (int(side) for side in _inside(image.height, image.width, (height, width)))
        canvas = Image.new("RGB", (width, height), self.background or BLACK).convert(image.mode)
        canvas.paste(image.resize((wide, tall), Image.Resampling.BICUBIC), (left, top))
        return canvas


def _middle(image: Image.Image, side: int) -> Image.Image:
    top, left = _margins(image.height, image.width, side, side)
    return image.crop((left, top, left + side, top + side))


def _margins(height: int, width: int, rows: int, columns: int) -> tuple[int, int]:
    return (height - rows) // 2, (width - columns) // 2


def _of_aspect(width: int, height: int, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the largest part in the middle that has the aspect of `size`, (H, W)."""
    aspect = size[1] / size[0]
    if width / height == aspect:
        return 0.0, 0.0, float(width), float(height)
    wide, tall = (aspect * height, float(height)) if width / height > aspect else (float(width), width / aspect)
    left, top = (width - wide) * 0.5, (height - tall) * 0.5
    return left, top, left + wide, top + tall


def _inside(height: int, width: int, size: tuple[int, int]) -> Box:
    """Place of all of a picture in `size`, (H, W), as large as it fits, in whole pixels."""
    scale = min(size[0] / height, size[1] / width)
    tall, wide = max(1, round(height * scale)), max(1, round(width * scale))
    return Box(*_margins(*size, tall, wide), tall, wide)


def _between(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values at places between the rows of (N, ...), linearly; beyond the ends those of the ends."""
    places = places.clip(0, len(values) - 1)
    below = places.astype(np.int64)
    share = (places - below)[:, None].astype(np.float32)
    return values[below] * (1 - share) + values[np.minimum(below + 1, len(values) - 1)] * share
