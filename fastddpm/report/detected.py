"""The page and the pictures of a detection, made from arrays and records."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastddpm.report.figures import heat, overlay
from fastddpm.report.pieces import cards, code, picture, save_document, section, table

MAX_SHOWN = 60
"""images of each kind on the page; the others are in the folder"""


@dataclass(frozen=True, kw_only=True)
class Detected:
    """What the page says; plain text, escaped here."""

    title: str
    facts: Sequence[tuple[str, str]]
    image_threshold: float
    measured: Sequence[tuple[str, str, str]] | None
    """name, value and interval of what was measured against masks"""
    rows: Sequence[dict[str, Any]]
    """image, score, is_anomaly, kind_scores, num_pixels, picture (relative to the page)"""
    has_masks: bool
    settings: str


def panels(image: np.ndarray, made: np.ndarray | None, map_: np.ndarray, threshold: float) -> np.ndarray:
    """An image, what a model made of it, its map, and the map laid over it: (3 or 4, 3, H, W), uint8.

    Args:
        image, made: (C, H, W), uint8; without `made` its place is left out.
        map_: (H, W), float.
    """
    given = [image] if made is None else [image, made]
    shown = [np.broadcast_to(x, (3, *x.shape[1:])) for x in given]
    return np.stack([*shown, heat(map_[None], threshold)[0], overlay(image[None], map_[None], threshold)[0]])


def save_detected(folder: Path, found: Detected) -> None:
    """Write `folder`/report.html."""
    highest = sorted(found.rows, key=lambda row: -row["score"])
    above, below = ([row for row in highest if row["is_anomaly"] == kind] for kind in (True, False))
    save_document(
        folder / "report.html",
        found.title,
        f"{len(above):,} of {len(found.rows):,} images are above the threshold",
        [
            cards(found.facts),
            section("Against the masks", _measured(found)),
            section("Above the threshold", _shown(folder, found, above)),
            section("Below it", _shown(folder, found, below)),
            section("How it was asked", f"<details><summary>calibration</summary>{code(found.settings)}</details>"),
        ],
    )


def _measured(found: Detected) -> str:
    return "" if found.measured is None else table(("", "value", "95 %"), found.measured)


def _shown(folder: Path, found: Detected, rows: Sequence[dict[str, Any]]) -> str:
    """Their pictures, the highest score first; an empty section is none."""
    mask = ", mask" if found.has_masks else ""
    body = "".join(picture(folder / row["picture"], _note(row)) for row in rows[:MAX_SHOWN])
    if not body:
        return ""
    rest = f"<p>and {len(rows) - MAX_SHOWN:,} more, in pictures/</p>" if len(rows) > MAX_SHOWN else ""
    legend = f"<p>Each row: the image, what the model makes of it, the map, what is above the threshold{mask}.</p>"
    return f'{legend}<div class="charts">{body}</div>{rest}'


def _note(row: dict[str, Any]) -> str:
    kinds = ", ".join(f"{kind} {score:.1f}" for kind, score in row["kind_scores"].items())
    marked = f"; {row['num_pixels']:,} pixels marked" if row["num_pixels"] else ""
    return f"{row['image']}: {row['score']:.2f} ({kinds}){marked}"
