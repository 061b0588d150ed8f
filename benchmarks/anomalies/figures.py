"""Pictures of the comparison: AUROC by digit, and planted defects with what was found of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.anomalies.defects import ON_COLOUR, ON_DIGITS
from benchmarks.anomalies.methods import DECIDING
from fastddpm.report.figures import heat, overlay

SHOWN = ("nearest neighbour, pixels", "PCA", "autoencoder", DECIDING)
COLOURS = ("#b8b8b8", "#8fa9c4", "#4878a8", "#c44e52")
TITLES = ("image", "mask", "map", "marked")


def bars(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """AUROC of some methods by the digit that is normal."""
    by_method = {row["method"]: row for row in rows}
    digits = [name for name in rows[0] if name.isdigit()]
    figure, axis = plt.subplots(figsize=(10, 3.6), layout="constrained")
    width = 0.8 / len(SHOWN)
    for number, (method, colour) in enumerate(zip(SHOWN, COLOURS, strict=True)):
        places = np.arange(len(digits)) + (number - (len(SHOWN) - 1) / 2) * width
        axis.bar(places, [by_method[method][digit] for digit in digits], width, label=method, color=colour)
    axis.set(xticks=range(len(digits)), xticklabels=digits, xlabel="the normal digit", ylabel="AUROC", ylim=(0.5, 1))
    axis.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.16), frameon=False, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def examples(kept: Path, kinds: Sequence[str], path: Path) -> None:
    """Of untouched images and of each kind of defect the first ones: image, mask, map, and what is
    above the threshold that 5 % of untouched images pass somewhere.

    Args:
        kept: the arrays that `measure` keeps.
    """
    with np.load(kept) as arrays:
        found = {name: arrays[name] for name in ("images", "masks", "maps", "normal_maps")}
    threshold = float(np.quantile(found["normal_maps"].max(axis=(1, 2)), 0.95))
    glow, marked = heat(found["maps"], threshold), overlay(found["images"], found["maps"], threshold)
    shown = len(found["images"]) // (len(kinds) + 1)
    figure, axes = plt.subplots(
        len(TITLES), len(found["images"]), squeeze=False, figsize=(0.8 * len(found["images"]), 0.86 * len(TITLES)),
        layout="constrained",
    )  # fmt: skip
    for place in range(len(found["images"])):
        pictures = (
            found["images"][place] / 255, found["masks"][place][None], glow[place] / 255, marked[place] / 255
        )  # fmt: skip
        panels = [_rgb(picture) for picture in pictures]
        for axis, panel in zip(axes[:, place], panels, strict=True):
            axis.imshow(panel, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        if place % shown == 0:
            axes[0, place].set_title(("untouched", *kinds)[place // shown], fontsize=9, loc="left")
    for axis, title in zip(axes[:, 0], TITLES, strict=True):
        axis.set_ylabel(title, fontsize=8)
    _save(figure, path)


def draw_all(work: Path, one_class_rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """What can be drawn of what was measured."""
    if one_class_rows:
        bars(one_class_rows, folder / "anomalies-digits.png")
    for name, kinds in (("digits", ON_DIGITS), ("colour", ON_COLOUR)):
        kept = sorted((work / "measured" / "planted").glob(f"{name}-seed*.npz"))
        if kept:
            examples(kept[0], kinds, folder / f"anomalies-planted-{name}.png")


def _rgb(picture: np.ndarray) -> np.ndarray:
    """(C, H, W) in [0, 1], one channel or three -> (H, W, 3)."""
    return np.broadcast_to(picture, (3, *picture.shape[1:])).transpose(1, 2, 0).astype(float).clip(0, 1)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
