"""Grids and strips of images."""

import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from fastddpm.files import written

_GAP = 2
_PAPER = 255


def save_grid(images: np.ndarray, path: Path, *, columns: int | None = None, scale: int | None = None) -> None:
    """Draw images side by side, row by row.

    Args:
        images: (N, C, H, W), uint8, one or three channels.
        columns: images a row; None: as square as it gets.
        scale: pixels a pixel; None: so that the grid is some 600 pixels wide.
    """
    save_image(grid(images, columns=columns, scale=scale), path)


def grid(images: np.ndarray, *, columns: int | None = None, scale: int | None = None) -> Image.Image:
    """Picture that `save_grid` writes: RGB."""
    count, _, height, width = images.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    canvas = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), _PAPER, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = _GAP + i // columns * (height + _GAP), _GAP + i % columns * (width + _GAP)
        canvas[top : top + height, left : left + width] = np.moveaxis(image, 0, -1)
    scale = scale or max(1, round(600 / canvas.shape[1]))
    return Image.fromarray(canvas).resize((canvas.shape[1] * scale, canvas.shape[0] * scale), Image.Resampling.NEAREST)


def save_labelled_rows(
    rows: Sequence[tuple[str, np.ndarray]], path: Path, *, scale: int = 2, title: str = "", heads: Sequence[str] = (),
    width: int = 0,
) -> None:  # fmt: skip
    """Draw one strip of images a row, with its name on the left.

    Args:
        rows: (name, images (N, C, H, W), uint8).
        scale: pixels a pixel.
        title: lines above the rows.
        heads: names above the columns, from the first on.
        width: pixels in which rows stand beside each other, as many as fit; 0: each stands below the one before.
    """
    side = rows[0][1].shape[-2:]
    tall, wide = ((pixels + _GAP) * scale for pixels in side)
    margin = 16 + max(_width_of(name) for name, _ in rows)
    block = margin + max(len(images) for _, images in rows) * wide + 8
    abreast = min(max(1, width // block), len(rows))
    length = -(-len(rows) // abreast)
    least = 0 if not title else 480
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, max(least, abreast * block) // 7)]
    above = 16 * len(lines) + 8 * bool(lines)
    top = above + 16 * bool(heads)
    longest = max((16 + _width_of(line) for line in lines), default=0)
    canvas = Image.new("RGB", (max(longest, abreast * block), top + length * tall + _GAP), (_PAPER,) * 3)
    pen = ImageDraw.Draw(canvas)

    def text(left: int, at: int, words: str) -> None:
        pen.text((left, at), words, fill=(40, 40, 40), font=_font())

    for place, line in enumerate(lines):
        text(8, 6 + 16 * place, line)
    for row, (name, images) in enumerate(rows):
        left, first = row // length * block, top + row % length * tall
        if row % length == 0:
            for column, head in enumerate(heads):
                text(left + margin + column * wide, above + 2, head)
        text(left + 8, first + tall // 2 - 6 - 7 * name.count("\n"), name)
        for column, image in enumerate(images):
            canvas.paste(tile(image, scale), (left + margin + column * wide, first + _GAP))
    save_image(canvas, path)


def tile_scale(side: int, count: int = 1) -> int:
    """Pixels a pixel, so that an image of `side` pixels is some 72 wide, and `count` of them no wider than a page."""
    return max(1, min(round(72 / side), 1600 // (count * (side + _GAP))))


def _width_of(text: str) -> int:
    return round(max((_font().getlength(line) for line in text.splitlines()), default=0))


@cache
def _font() -> ImageFont.FreeTypeFont:
    """Matplotlib's own: Pillow's has no letters beyond ASCII."""
    import matplotlib  # takes a moment: only when something is written

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 11)


def save_pairs(pairs: Sequence[tuple[np.ndarray, np.ndarray, str]], path: Path, *, title: str = "") -> None:
    """Draw pairs of images, one above the other, with a note under each pair.

    Args:
        pairs: (upper image, lower image, note), at least one; images (C, H, W), uint8, all of one shape.
        title: words above them.
    """
    height, width = pairs[0][0].shape[-2:]
    scale = max(1, round(72 / width))
    wide, tall = max((width + _GAP) * scale, 64), (height + _GAP) * scale
    columns = min(len(pairs), max(1, 900 // wide))
    rows = -(-len(pairs) // columns)
    block = 2 * tall + 26
    across = max(columns * (wide + 8) + 8, 480 if title else 0)
    lines = textwrap.wrap(title, across // 7)
    above = 8 + 16 * len(lines)
    canvas = Image.new("RGB", (across, above + rows * block), (_PAPER,) * 3)
    pen = ImageDraw.Draw(canvas)
    for place, line in enumerate(lines):
        pen.text((8, 6 + 16 * place), line, fill=(40, 40, 40), font=_font())
    for i, (upper, lower, note) in enumerate(pairs):
        left, top = 8 + i % columns * (wide + 8), above + i // columns * block
        canvas.paste(tile(upper, scale), (left, top))
        canvas.paste(tile(lower, scale), (left, top + tall))
        pen.text((left, top + 2 * tall + 2), note, fill=(60, 60, 60))
    save_image(canvas, path)


def tile(image: np.ndarray, scale: int) -> Image.Image:
    """One image, (C, H, W) uint8, as RGB with each pixel `scale` pixels wide."""
    _, height, width = image.shape
    array = np.ascontiguousarray(np.broadcast_to(np.moveaxis(image, 0, -1), (height, width, 3)))
    return Image.fromarray(array).resize((width * scale, height * scale), Image.Resampling.NEAREST)


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG in one move, so that a reader never finds half of it."""
    with written(path) as temporary:
        image.save(temporary, format="PNG", optimize=True)


_RED = np.array([235, 40, 40], dtype=np.float64)
MOST = 2.0
"""thresholds at which a map is as hot as it gets"""


def heat(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Maps in the colours of glowing metal; the threshold is in the middle.

    Args:
        maps: (N, H, W), float.
        threshold: above 0.
    Returns: (N, 3, H, W), uint8.
    """
    from matplotlib import colormaps  # takes a moment: only when something is drawn

    colours = colormaps["inferno"](np.clip(maps / (MOST * threshold), 0, 1))[..., :3]
    return np.moveaxis((colours * 255).round().astype(np.uint8), -1, 1)


def overlay(images: np.ndarray, maps: np.ndarray, threshold: float) -> np.ndarray:
    """Images with what is above the threshold in red, and its outline.

    Args:
        images: (N, C, H, W), uint8.
        maps: (N, H, W), float.
    Returns: (N, 3, H, W), uint8.
    """
    count, _, height, width = images.shape
    inside = maps > threshold
    share = np.where(inside, 0.45, 0.0)
    share[inside & ~ndimage.binary_erosion(inside, ndimage.generate_binary_structure(2, 1)[None])] = 1.0
    colour = np.broadcast_to(images, (count, 3, height, width)).astype(np.float64)
    red = _RED[None, :, None, None]
    return (colour + share[:, None] * (red - colour)).round().astype(np.uint8)
