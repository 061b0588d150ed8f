"""What drawn images gain over t and over K, for each number of labelled images."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastddpm.report.charts import Chart, Curve
from fastddpm.studies.augmentation.estimates import COMPARED, LETTERS, Share

Rows = Sequence[Mapping[str, Any]]
"""of `Accuracies.row`, of one kind of generator"""


def charts_of(rows: Rows, kept: Sequence[Share], main: tuple[int, int]) -> list[Chart]:
    """Differences in points of accuracy with their intervals: of drawn images alone, and beside classic augmentation;
    and how many of them keep their label. What was measured at one t, or one K, only has no chart over it.

    Args:
        kept: of the same kind.
        main: t and K; charts over t are at this K, charts over K at this t.
    """
    over = {"start_timestep": ("start timestep", 1, "num_per_image"), "num_per_image": ("K", 0, "start_timestep")}
    charts = []
    for name, (shown, other, fixed) in over.items():
        chosen = [row for row in rows if row[fixed] == main[other]]
        if len({row[name] for row in chosen}) > 1:
            charts += [_gain(chosen, name, shown, compared) for compared in COMPARED[:2]]
    if len({row.start for row in kept}) > 1:
        charts.append(_kept(kept))
    return charts


def _gain(rows: Rows, name: str, shown: str, compared: tuple[Any, Any]) -> Chart:
    first, second = compared
    places = [row[name] for row in rows]
    sizes = list(dict.fromkeys(row["num_labelled"] for row in rows))
    curves = [Curve("no difference", [min(places), max(places)], [0.0, 0.0])]
    for turn, size in enumerate(sizes):
        of_size = sorted((row for row in rows if row["num_labelled"] == size), key=lambda row: row[name])
        found = [row["difference"][f"{first} - {second}"] for row in of_size]
        aside = (turn - (len(sizes) - 1) / 2) * 0.012 * (max(places) - min(places))  # intervals hide each other else
        curves.append(
            Curve(
                f"{size:,} labelled", [row[name] + aside for row in of_size], [100 * one["mean"] for one in found],
                marked=True, half_widths=[100 * (one["high"] - one["mean"]) for one in found],
            )
        )  # fmt: skip
    what = "drawn images alone" if second == "reals" else "drawn beside classic"
    return Chart(f"{what}: ({LETTERS[first]}) - ({LETTERS[second]}), points of accuracy", curves, over=shown)


def _kept(kept: Sequence[Share]) -> Chart:
    curves = []
    for size in dict.fromkeys(row.size for row in kept):
        of_size = sorted((row for row in kept if row.size == size), key=lambda row: row.start)
        places, shares = [row.start for row in of_size], [100 * row.share for row in of_size]
        curves.append(Curve(f"{size:,} labelled", places, shares, marked=True))
    return Chart("drawn images that keep their label, %", curves, over="start timestep")
