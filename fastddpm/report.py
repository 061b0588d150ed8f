"""Pictures of a run, drawn from arrays and records; knows no model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter
from PIL import Image, ImageDraw

_GAP = 2
_PAPER = 255


def save_grid(images: np.ndarray, path: Path, *, columns: int | None = None, scale: int | None = None) -> None:
    """Draw images side by side, row by row.

    Args:
        images: (N, C, H, W), uint8, one or three channels.
        columns: images a row; None: as square as it gets.
        scale: pixels a pixel; None: so that the grid is some 600 pixels wide.
    """
    count, _, height, width = images.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    canvas = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), _PAPER, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = _GAP + i // columns * (height + _GAP), _GAP + i % columns * (width + _GAP)
        canvas[top : top + height, left : left + width] = np.moveaxis(image, 0, -1)
    scale = scale or max(1, round(600 / canvas.shape[1]))
    drawn = Image.fromarray(canvas).resize((canvas.shape[1] * scale, canvas.shape[0] * scale), Image.Resampling.NEAREST)
    _save(drawn, path)


def save_labelled_rows(rows: Sequence[tuple[str, np.ndarray]], path: Path, *, scale: int = 2) -> None:
    """Draw one strip of images a row, with its name on the left.

    Args:
        rows: (name, images (N, C, H, W), uint8).
    """
    height, width = rows[0][1].shape[-2:]
    margin, tall, wide = 110, (height + _GAP) * scale, (width + _GAP) * scale
    most = max(len(images) for _, images in rows)
    canvas = Image.new("RGB", (margin + most * wide + _GAP, len(rows) * tall + _GAP), (_PAPER,) * 3)
    pen = ImageDraw.Draw(canvas)
    for row, (name, images) in enumerate(rows):
        pen.text((8, row * tall + tall // 2 - 6), name, fill=(40, 40, 40))
        for column, image in enumerate(images):
            array = np.ascontiguousarray(np.broadcast_to(np.moveaxis(image, 0, -1), (height, width, 3)))
            tile = Image.fromarray(array).resize((width * scale, height * scale), Image.Resampling.NEAREST)
            canvas.paste(tile, (margin + column * wide, row * tall + _GAP))
    _save(canvas, path)


def save_loss_plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot the training loss over images seen, whole and by timestep quartile, and the held-out loss.

    Args:
        rows: of metrics.jsonl.
    """
    training = [row for row in rows if row.get("loss") is not None]
    held_out = [row for row in rows if "held_out_loss" in row]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    seen = [row["images_seen"] for row in training]
    left.plot(seen, [row["loss"] for row in training], label="training", linewidth=1)
    if held_out:
        left.plot(
            [row["images_seen"] for row in held_out],
            [row["held_out_loss"] for row in held_out],
            "o-",
            label="held out (averaged weights)",
            markersize=3,
        )
    for quartile in range(4):
        values = [row["loss_by_quartile"][quartile] for row in training]
        right.plot(seen, [np.nan if v is None else v for v in values], linewidth=1, label=_quartile_name(quartile))
    for axes, title in ((left, "loss"), (right, "loss by timestep quartile")):
        axes.set(title=title, xlabel="images seen", yscale="log")
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
    temporary.replace(path)


def _quartile_name(quartile: int) -> str:
    return ("t in the 1st quarter (least noise)", "2nd", "3rd", "4th (most noise)")[quartile]


def _save(image: Image.Image, path: Path) -> None:
    temporary = path.with_name(f".{path.name}")
    image.save(temporary, format="PNG", optimize=True)
    temporary.replace(path)
