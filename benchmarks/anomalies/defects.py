"""Defects planted in normal images, with masks of the pixels they changed; image by image from a seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_CHANGE = 24
"""grey levels from which a pixel counts as changed: the foot of a soft edge is not seen"""
MIN_SHARE = 0.01
"""of an image's pixels that must have changed; another defect is drawn otherwise"""
MAX_DRAWS = 200
Picture = NDArray[np.uint8]
Draw = Callable[[Picture, Picture, np.random.Generator], NDArray[np.float64]]
"""(an image, another one, random numbers) -> the image with a defect; (C, H, W), 0 to 255"""


@dataclass(frozen=True, eq=False)
class Planted:
    """Images with a defect each."""

    images: NDArray[np.uint8]
    """(N, C, H, W)"""
    masks: NDArray[np.bool_]
    """(N, H, W), where they changed by at least `MIN_CHANGE` in some channel; never nowhere"""


def plant(kind: str, images: Picture, *, seed: int) -> Planted:
    """Give each image a defect.

    Args:
        kind: of `KINDS`.
        images: (N, C, H, W), uint8; the next one gives the part that is pasted.
        seed: image i gets the same defect whatever the others are, but for pasted parts.
    Raises: ValueError: another kind; an image that no defect of that kind changes, such as an erasure of an empty one.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; wanted one of {', '.join(KINDS)}")
    found = [
        _planted(kind, image, images[(place + 1) % len(images)], np.random.default_rng([seed, place]))
        for place, image in enumerate(images)
    ]
    return Planted(np.stack([image for image, _ in found]), np.stack([mask for _, mask in found]))


def _planted(kind: str, image: Picture, other: Picture, rng: np.random.Generator) -> tuple[Picture, NDArray[np.bool_]]:
    for _ in range(MAX_DRAWS):
        changed = np.clip(np.rint(KINDS[kind](image, other, rng)), 0, 255).astype(np.uint8)
        mask = np.any(np.abs(changed.astype(int) - image) >= MIN_CHANGE, axis=0)
        if mask.mean() >= MIN_SHARE:
            return changed, mask
    raise ValueError(f"no {kind} changes {MIN_SHARE:.0%} of an image in {MAX_DRAWS} draws; is it empty?")


def stroke(image: Picture, _: Picture, rng: np.random.Generator) -> NDArray[np.float64]:
    """A line as thick and as bright as a digit's, its edge one pixel wide."""
    side = min(image.shape[1:])
    centre, angle = rng.uniform(0.25, 0.75, 2) * side, rng.uniform(0, np.pi)
    half = rng.uniform(0.1, 0.22) * side * np.array([np.sin(angle), np.cos(angle)])
    cover = np.clip(rng.uniform(0.9, 1.6) * side / 28 + 0.5 - distance(image, centre - half, centre + half), 0, 1)
    return np.maximum(image, cover * rng.uniform(180, 255))


def erasure(image: Picture, _: Picture, rng: np.random.Generator) -> NDArray[np.float64]:
    """A disc around a bright pixel made black, its edge one pixel wide."""
    ink = np.argwhere(image.max(axis=0) >= 128)
    if not len(ink):
        return image.astype(np.float64)
    centre = ink[rng.integers(len(ink))].astype(np.float64)
    radius = rng.uniform(2.5, 4.5) * min(image.shape[1:]) / 28
    return image * (1 - np.clip(radius + 0.5 - distance(image, centre, centre), 0, 1))


def blot(image: Picture, _: Picture, rng: np.random.Generator) -> NDArray[np.float64]:
    """A soft bright blob."""
    side = min(image.shape[1:])
    centre, sigma = rng.uniform(0.2, 0.8, 2) * side, rng.uniform(1.5, 3.0) * side / 28
    return image + rng.uniform(100, 220) * np.exp(-(distance(image, centre, centre) ** 2) / (2 * sigma**2))


def hard_part(image: Picture, other: Picture, rng: np.random.Generator) -> NDArray[np.float64]:
    """A rectangle of another picture, cut hard."""
    return _pasted(image, other, rng, softness=0.0)


def soft_part(image: Picture, other: Picture, rng: np.random.Generator) -> NDArray[np.float64]:
    """A rectangle of another picture that fades into this one over a twelfth of a side."""
    return _pasted(image, other, rng, softness=min(image.shape[1:]) / 12)


KINDS: Mapping[str, Draw] = {
    "stroke": stroke, "erasure": erasure, "blot": blot, "hard part": hard_part, "soft part": soft_part,
}  # fmt: skip
ON_DIGITS, ON_COLOUR = ("stroke", "erasure", "blot"), ("hard part", "soft part")


def distance(image: Picture, start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each pixel's centre from a line, in pixels: (H, W).

    Args:
        image: (C, H, W).
        start, end: (row, column); equal: a point.
    """
    pixels = np.moveaxis(np.indices(image.shape[1:]), 0, -1) - start  # (H, W, 2)
    along = end - start
    share = np.clip(pixels @ along / max(float(along @ along), 1e-12), 0, 1)
    return np.linalg.norm(pixels - share[..., None] * along, axis=-1)


def _pasted(image: Picture, other: Picture, rng: np.random.Generator, softness: float) -> NDArray[np.float64]:
    shape = np.array(image.shape[1:])
    size = np.maximum(2, rng.uniform(0.2, 0.4, 2) * shape).astype(int)
    to, of = (rng.integers(0, shape - size + 1) for _ in range(2))
    moved = np.roll(other, to - of, axis=(1, 2))  # its rectangle at `of` lies at `to` now
    inside = [np.minimum(np.arange(n) - low, low + length - 1 - np.arange(n)) + 1 for n, low, length in zip(
        shape, to, size, strict=True)]  # fmt: skip
    depth = np.minimum(inside[0][:, None], inside[1][None, :])  # 1 on the rectangle's rim, more within, else below 1
    cover = np.clip(depth / (softness + 1), 0, 1)
    return cover * moved + (1 - cover) * image
