"""python -m benchmarks.anomalies STAGE: see the package's docstring."""

import argparse
from pathlib import Path
from typing import Any

from benchmarks import anomalies
from benchmarks.anomalies import figures, measure, runs, tables
from benchmarks.anomalies.judges import judge_of
from benchmarks.anomalies.promise import promise
from benchmarks.anomalies.rare import rare
from benchmarks.anomalies.sets import TINY, Parts, Sizes, colours, digits, together
from benchmarks.harness import ROOT, parser, write_record

STAGES = ("train", "judges", "one-class", "planted", "promise", "rare", "record")


def main() -> None:
    given = _arguments()
    sizes = TINY if given.tiny else Sizes()
    if given.stage == "record":
        record(given.work, given.out, given.images)
        return
    parts = digits(given.mnist, sizes)
    colour = None if given.colour is None else colours(given.colour, given.work, sizes)
    if given.stage == "train":
        planned = runs.tasks(given.seeds, sizes, has_colour=colour is not None)
        runs.train_all([task for task in planned if task.name.startswith(given.only)], parts, given.work, sizes)
    elif given.stage == "judges":
        for name, normal in _normal_sets(parts, colour).items():
            judge_of(name, normal, given.work, sizes)
    elif given.stage == "one-class":
        measure.one_class(parts, given.work, given.seeds, sizes)
    elif given.stage == "planted":
        measure.planted(parts, colour, given.work, given.seeds, sizes)
    elif given.stage == "promise":
        run = runs.folder_of(runs.everything(given.seeds[0], sizes), given.work)
        measure.write(measure.kept(given.work, "promise", "digits"), promise(run, together(parts), "stroke", sizes))
    else:
        rare(parts, given.work, sizes)


def record(work: Path, out: Path, images: Path) -> None:
    """Write what was measured as records, `out`-one-class and so on, and its pictures into `images`."""
    kept = {test: measure.all_kept(work, test) for test in ("one-class", "planted", "rare")}
    titles = {
        "one-class": "Anomalies: one digit against the others",
        "planted": "Anomalies: planted defects",
        "rare": "Anomalies: a detector from few examples of a rare digit",
    }
    made = {"one-class": tables.one_class_rows, "planted": tables.planted_rows, "rare": tables.rare_rows}
    rows = {test: list(tables.without_none(made[test](found))) for test, found in kept.items() if found}
    for test, table in rows.items():
        write_record(out.with_name(f"{out.name}-{test}"), titles[test], table, facts=_facts(kept[test]))
    figures.draw_all(work, rows.get("one-class", []), images)


def _facts(kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each measurement: what it was of, how large the detectors were, and of one digit against the others its AUROC,
    since a seed without all digits is in no row."""
    named = ("digit", "set", "count", "seed", "facts", "made")
    found = [{name: row[name] for name in named if name in row} for row in kept]
    for facts, row in zip(found, kept, strict=True):
        if "methods" in row:
            facts["AUROC"] = {name: round(of["image_auroc"], 4) for name, of in row["methods"].items()}
    return found


def _normal_sets(parts: list[Parts], colour: Parts | None) -> dict[str, Parts]:
    named = {f"digit{digit}": part for digit, part in enumerate(parts)} | {"digits": together(parts)}
    return named if colour is None else {**named, "colour": colour}


def _arguments() -> argparse.Namespace:
    asked = parser(anomalies.__doc__, "anomalies")
    asked.add_argument("stage", choices=STAGES)
    asked.add_argument("--mnist", type=Path, help="train-images-idx3-ubyte[.gz], its labels beside it")
    asked.add_argument("--colour", type=Path, help="a folder or a zip of colour pictures; left out: digits only")
    asked.add_argument("--work", type=Path, required=True, help="where runs and measurements are, or come to be")
    asked.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked.add_argument("--only", default="", help="of the stage train: runs whose names begin with this")
    asked.add_argument("--images", type=Path, default=ROOT / "docs" / "images", help="where pictures go (%(default)s)")
    given = asked.parse_args()
    if given.mnist is None and given.stage != "record":
        asked.error(f"the stage {given.stage} needs --mnist; only record does without")
    return given


if __name__ == "__main__":
    main()
