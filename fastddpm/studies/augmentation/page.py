"""gain.json and gain.html: tables, plots, and what was done."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastddpm import report
from fastddpm.config import RunConfig, to_yaml
from fastddpm.files import write_json
from fastddpm.report.charts import Chart, Curve
from fastddpm.report.page_pieces import save_document
from fastddpm.studies.augmentation.estimates import COMPARED, LETTERS, Accuracies, Accuracy, Condition, Share
from fastddpm.studies.augmentation.generators import Points
from fastddpm.studies.augmentation.settings import GainConfig, Kind
from fastddpm.training.metrics import read_metrics, training_time

NAMES: dict[Condition, str] = {
    "reals": "reals", "classic": "reals, classic augmentation", "drawn": "reals + drawn",
    "both": "reals + drawn, classic augmentation",
}  # fmt: skip
TITLES: dict[Kind, str] = {
    "own": "A generator trained on the labelled images only",
    "all": "A generator trained on all images, without labels",
}
Rows = Sequence[Mapping[str, Any]]
"""rows of `Accuracies.row`, of one kind of generator"""


def write(
    config: GainConfig, facts: dict[str, Any], runs: Sequence[RunConfig], points: Points, rows: Sequence[Accuracy],
    kept: Sequence[Share],
) -> list[str]:  # fmt: skip
    """Write gain.json, gain.html and a picture of the plots for each kind of generator, if there are several points.

    Args:
        facts: what gain.json holds beside settings and numbers.
        runs: of the generators.
        points: that were measured.
        kept: of drawn images, the share that keeps its label.
    Returns: the tables as lines to read in a terminal.
    """
    folder, found = Path(config.output_dir), Accuracies(rows)
    by_kind = {
        kind: [found.row(size, kind, point) for size in config.num_labelled for point in points[size]]
        for kind in config.kinds
    }
    record = {
        "title": config.title,
        "tables": by_kind,
        "labels_kept": [asdict(row) for row in kept],
        "limits": limits(config, facts["num_held_out"]),
        **facts,
        "generators": [_of_run(run) for run in runs],
        "config": asdict(config),
        "accuracies": [asdict(row) for row in rows],
    }
    write_json(folder / "gain.json", record)
    tables = []
    for kind, of_kind in by_kind.items():
        charts = charts_of(of_kind, [row for row in kept if row.kind == kind], config.drawing.main)
        if charts:
            report.save_charts(charts, folder / f"gain-{kind}.png")
        run = next(run for run in runs if (Path(run.output_dir).name == "all") == (kind == "all"))
        tables.append({**_table(of_kind, config.drawing.main), "title": TITLES[kind], "charts": charts,
                       "note": _how_trained(kind, run, facts["num_pool"])})  # fmt: skip
    start, num = config.drawing.main
    save_document(
        folder / "gain.html", "studies/augmentation/page.html", **record, drawn=tables, folder=folder,
        state=f"drawn images: {config.drawing.mode}, t = {start}, {num} of each labelled image; means of "
        f"{config.num_seeds} seeds with 95 % t-intervals", settings=to_yaml(config),
    )  # fmt: skip
    return [line for table in tables for line in _lines(table)] + [f"report: {folder / 'gain.html'}"]


def _how_trained(kind: Kind, run: RunConfig, num_pool: int) -> str:
    of_labels = "with" if run.model.class_conditional else "without"
    whose = f"one for all, on {num_pool:,} images" if kind == "all" else "one for each labelled set and seed"
    return f"{whose}; {run.train.num_images_seen:,} images seen, {of_labels} labels"


def _table(rows: Rows, main: tuple[int, int]) -> dict[str, Any]:
    """Table at the main t and K: accuracy of each condition by number of labelled images, and differences with a
    verdict."""
    of_main = [row for row in rows if (row["start_timestep"], row["num_per_image"]) == main]
    differences = []
    for first, second in COMPARED:
        said = f"({LETTERS[first]}) - ({LETTERS[second]}): {NAMES[first]} against {NAMES[second]}"
        for row in of_main:
            found = row["difference"][f"{first} - {second}"]
            differences.append([said, f"{row['num_labelled']:,}", _points(found), found["verdict"]])
    return {
        "head": ["labelled images", *(f"({letter}) {NAMES[name]}" for name, letter in LETTERS.items())],
        "accuracies": [
            [f"{row['num_labelled']:,}", *(_share(row["accuracy"][name]) for name in LETTERS)] for row in of_main
        ],
        "differences": differences,
    }  # fmt: skip


def _share(found: Mapping[str, float]) -> str:
    return f"{100 * found['mean']:.2f} % ± {100 * (found['high'] - found['mean']):.2f}"


def _points(found: Mapping[str, float]) -> str:
    return f"{100 * found['mean']:+.2f} ({100 * found['low']:+.2f} to {100 * found['high']:+.2f})"


def _lines(table: Mapping[str, Any]) -> list[str]:
    rows = [" | ".join(row) for row in (table["head"], *table["accuracies"])]
    said = [f"{size} labelled: {what}: {difference}: {verdict.upper()}"
            for what, size, difference, verdict in table["differences"]]  # fmt: skip
    return [table["title"], *(f"    {line}" for line in (*rows, *said))]


def limits(config: GainConfig, num_held_out: int) -> list[str]:
    """Limits that a reader must know before believing the tables."""
    found = [
        f"Every classifier takes {config.classifier.num_steps} steps from the same weights; a longer training, another "
        f"network or another share of drawn images in a batch may say otherwise.",
        f"Intervals are of {config.num_seeds} seeds: each has labelled images, a generator and a classifier of its "
        f"own. The {num_held_out:,} held-out images are the same ones throughout.",
        "Each interval is for itself: of twenty comparisons that hide nothing, one is expected to show something.",
        "t and K of the tables must be set before anything is measured. Whoever takes the best point of a plot instead "
        "has chosen it on the images that it is measured on.",
        "Classic augmentation and generators are as the settings say; nothing here tunes them.",
    ]
    if "all" in config.kinds:
        found.append("The generator of all images is one: what another training of it would give is in no interval.")
    return found


def _of_run(run: RunConfig) -> dict[str, Any]:
    folder = Path(run.output_dir)
    rows = read_metrics(folder / "metrics.jsonl")
    return {"name": folder.name, "images_seen": rows[-1]["images_seen"], "seconds": round(training_time(rows)[0], 1)}


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
