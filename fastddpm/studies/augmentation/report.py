"""gain.json and gain.html: tables, plots, and what was done."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastddpm import report
from fastddpm.config import RunConfig, to_yaml
from fastddpm.studies.augmentation.drawn import Kind, Points
from fastddpm.studies.augmentation.estimates import COMPARED, LETTERS, Accuracies, Accuracy, Condition, Share
from fastddpm.studies.augmentation.learning import build_classifier
from fastddpm.studies.augmentation.plots import charts_of
from fastddpm.studies.augmentation.settings import GainConfig
from fastddpm.training.metrics import read_metrics, training_time

NAMES: dict[Condition, str] = {
    "reals": "reals", "classic": "reals, classic augmentation", "drawn": "reals + drawn",
    "both": "reals + drawn, classic augmentation",
}  # fmt: skip
TITLES: dict[Kind, str] = {
    "own": "A generator trained on the labelled images only",
    "all": "A generator trained on all images, without labels",
}


@dataclass(frozen=True)
class About:
    """What was done, beside the numbers."""

    config: GainConfig
    kinds: tuple[Kind, ...]
    num_pool: int
    """images that the labelled ones are drawn from"""
    num_held_out: int
    num_classes: int
    runs: list[RunConfig]
    """of the generators"""
    image_shape: tuple[int, int, int]
    device: str
    versions: str


def write(
    folder: Path, about: About, points: Points, rows: Sequence[Accuracy], kept: Sequence[Share]
) -> list[str]:  # fmt: skip
    """Write gain.json, gain.html and a picture of the plots for each kind of generator, if there are several points.

    Args:
        points: that were measured.
        kept: of drawn images, the share that keeps its label.
    Returns: the tables as lines to read in a terminal.
    """
    config, found = about.config, Accuracies(rows)
    by_kind = {
        kind: [found.row(size, kind, point) for size in config.num_labelled for point in points[size]]
        for kind in about.kinds
    }
    _write_record(folder / "gain.json", about, by_kind, rows, kept)
    drawn = {
        kind: charts_of(by_kind[kind], [row for row in kept if row.kind == kind], config.drawing.main)
        for kind in by_kind
    }
    for kind, charts in drawn.items():
        if charts:
            report.save_charts(charts, folder / f"gain-{kind}.png")
    tables = {kind: _table(about, kind, by_kind[kind], drawn[kind]) for kind in by_kind}
    main = config.drawing.main
    page = report.Gained(
        title=config.title,
        state=f"drawn images: {config.drawing.mode}, t = {main[0]}, {main[1]} of each labelled image; means of "
        f"{config.num_seeds} seeds with 95 % t-intervals",
        facts=_facts(about),
        limits=limits(about),
        tables=list(tables.values()),
        command=f"fastddpm evaluate augmentation --config {folder / 'config.yaml'}",
        config=to_yaml(config),
    )
    report.save_gain(folder / "gain.html", page)
    return [line for table in tables.values() for line in _lines(table)] + [f"report: {folder / 'gain.html'}"]


def _table(about: About, kind: Kind, rows: Sequence[Mapping[str, Any]], charts: Sequence[Any]) -> report.GainTable:
    main = about.config.drawing.main
    of_main = [row for row in rows if (row["start_timestep"], row["num_per_image"]) == main]
    head = ("labelled images", *(f"({letter}) {NAMES[name]}" for name, letter in LETTERS.items()))
    accuracies = [
        [f"{row['num_labelled']:,}", *(_share(row["accuracy"][name]) for name in LETTERS)] for row in of_main
    ]  # fmt: skip
    differences = []
    for first, second in COMPARED:
        for row in of_main:
            found = row["difference"][f"{first} - {second}"]
            said = f"({LETTERS[first]}) - ({LETTERS[second]}): {NAMES[first]} against {NAMES[second]}"
            differences.append([said, f"{row['num_labelled']:,}", _points(found), found["verdict"]])
    run = next(run for run in about.runs if (Path(run.output_dir).name == "all") == (kind == "all"))
    of_labels = "with" if run.model.class_conditional else "without"
    seen = f"{run.train.num_images_seen:,} images seen, {of_labels} labels"
    whose = f"one for all, on {about.num_pool:,} images" if kind == "all" else "one for each labelled set and seed"
    return report.GainTable(TITLES[kind], f"{whose}; {seen}", head, accuracies, differences, charts)


def _share(found: Mapping[str, float]) -> str:
    return f"{100 * found['mean']:.2f} % ± {100 * (found['high'] - found['mean']):.2f}"


def _points(found: Mapping[str, float]) -> str:
    return f"{100 * found['mean']:+.2f} ({100 * found['low']:+.2f} to {100 * found['high']:+.2f})"


def _lines(table: report.GainTable) -> list[str]:
    rows = [" | ".join(row) for row in (table.head, *table.accuracies)]
    said = [f"{size} labelled: {what}: {difference}: {verdict.upper()}"
            for what, size, difference, verdict in table.differences]  # fmt: skip
    return [table.title, *(f"    {line}" for line in (*rows, *said))]


def _facts(about: About) -> list[tuple[str, str]]:
    config = about.config
    drawing, classic, learns = config.drawing, config.classic, config.classifier
    return [
        ("images", config.source),
        ("held out", f"{about.num_held_out:,}"),
        ("labelled ones are drawn from", f"{about.num_pool:,}"),
        ("seeds", str(config.num_seeds)),
        ("drawn by", f"{drawing.scheduler}, {drawing.num_inference_steps} steps"),
        ("classic augmentation", f"shift {classic.shift:g} px, rotation {classic.rotation:g} degrees, elastic "
                                 f"{classic.elastic:g} px, smooth over {classic.smoothness:g} px"),
        ("classifier", f"{_num_parameters(about):,} parameters, {learns.num_steps} steps of {learns.batch_size} "
                       f"images, {learns.share_drawn:.0%} of them drawn where there are any"),
        ("device", about.device),
        ("versions", about.versions),
    ]  # fmt: skip


def limits(about: About) -> list[str]:
    """What a reader must know before believing the tables."""
    config = about.config
    found = [
        f"Every classifier takes {config.classifier.num_steps} steps from the same weights; a longer training, another "
        f"network or another share of drawn images in a batch may say otherwise.",
        f"Intervals are of {config.num_seeds} seeds: each has labelled images, a generator and a classifier of its "
        f"own. The {about.num_held_out:,} held-out images are the same ones throughout.",
        "Each interval is for itself: of twenty comparisons that hide nothing, one is expected to show something.",
        "t and K of the tables must be set before anything is measured. Whoever takes the best point of a plot instead "
        "has chosen it on the images that it is measured on.",
        "Classic augmentation and generators are as the settings say; nothing here tunes them.",
    ]
    if "all" in about.kinds:
        found.append("The generator of all images is one: what another training of it would give is in no interval.")
    return found


def _num_parameters(about: About) -> int:
    network = build_classifier(about.image_shape[0], about.num_classes, about.config.classifier.width)
    return sum(parameter.numel() for parameter in network.parameters())


def _write_record(
    path: Path, about: About, by_kind: Mapping[Kind, Any], rows: Sequence[Accuracy], kept: Sequence[Share]
) -> None:
    record = {
        "title": about.config.title,
        "tables": by_kind,
        "labels_kept": [asdict(row) for row in kept],
        "limits": limits(about),
        "num_held_out": about.num_held_out,
        "num_pool": about.num_pool,
        "classifier_parameters": _num_parameters(about),
        "generators": [_of_run(run) for run in about.runs],
        "device": about.device,
        "versions": about.versions,
        "config": asdict(about.config),
        "accuracies": [asdict(row) for row in rows],
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(temporary, path)


def _of_run(run: RunConfig) -> dict[str, Any]:
    folder = Path(run.output_dir)
    rows = read_metrics(folder / "metrics.jsonl")
    return {"name": folder.name, "images_seen": rows[-1]["images_seen"], "seconds": round(training_time(rows)[0], 1)}
