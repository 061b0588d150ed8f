"""report.json and report.html of a reproduction, and the pictures in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from fastddpm import report
from fastddpm.config import to_yaml
from fastddpm.files import write_json
from fastddpm.report.charts import Chart, Curve, Rows, charts_of
from fastddpm.report.page_pieces import save_document
from fastddpm.studies.paper.claims import Measured
from fastddpm.studies.paper.dcgan_trials import Opponent
from fastddpm.studies.paper.drawings import SIMILAR, UNRELATED, Drawings
from fastddpm.studies.paper.settings import ReproductionConfig
from fastddpm.training.metrics import read_metrics, training_time

COLUMNS = 12


def write(
    config: ReproductionConfig, facts: dict[str, Any], opponent: Opponent, drawings: Drawings, measured: Measured,
    copies: dict[str, Any],
) -> None:  # fmt: skip
    """Write the figures, report.json and report.html.

    Args:
        facts: what report.json holds beside settings and numbers: images, features, machine.
    """
    folder = Path(config.output_dir)
    metrics = read_metrics(folder / "ddpm" / "metrics.jsonl")
    record = {**facts, **_record(config, metrics, opponent, measured, copies)}
    write_json(folder / "report.json", record)
    holding = sum(claim.verdict == "holds" for claim in measured.claims)
    save_document(
        folder / "report.html", "studies/paper/page.html", **record, folder=folder, title=config.title,
        state=f"{holding} of {len(measured.claims)} claims hold, with {config.budget} of training for each model",
        limits=limits(config, record), figures=_figures(folder, config, drawings), opponent=opponent, in_time=_time,
        dial_charts=_dial_charts(record["dial"]), curves=charts_of(metrics), settings=to_yaml(config),
    )  # fmt: skip


def lines_of(measured: Measured) -> list[str]:
    """The claims to read in a terminal."""
    return [
        f"figure {c.figure}: {c.claim}: {c.verdict.upper()}\n    {c.measured}\n    {c.control}" for c in measured.claims
    ]


def limits(config: ReproductionConfig, record: Mapping[str, Any]) -> list[str]:
    """Limits that a reader must know before believing the table."""
    ddpm, measure = record["ddpm"], config.measure
    num_training, budget = record["training"]["of"], config.budget_seconds
    epochs = ddpm["images_seen"] / num_training
    found = [
        f"The DDPM saw {ddpm['images_seen']:,} images, {epochs:.1f} epochs of {num_training:,}; the paper's saw 1,000.",
        f"Images were drawn in {measure.num_inference_steps} reverse steps, fewer from lower starts; the paper takes "
        f"all.",
        "Figures 4 and 6 hold by the paper's word, about as good: intervals that overlap may still hide a difference, "
        "and both models may be far from real images.",
        "One seed of training for each model: how much another seed would change is not known.",
        f"The DCGAN's settings were chosen by FID on the same held-out images, of {len(record['dcgan']['trials'])}; "
        f"the DDPM's were not.",
    ]
    off = [
        f"the {name} took {_time(seconds)}"
        for name, seconds in (("DDPM", ddpm["seconds"]), ("DCGAN", record["dcgan"]["seconds_at_the_end"]))
        if not 0.8 <= seconds / budget <= 1.25
    ]
    if off:
        found.append(
            f"The budget of {config.budget} was turned into images by a short measurement; the machine was "
            f"faster or slower later: {', '.join(off)}."
        )
    if config.features is None:
        found.append(
            f"Distances and scores are in {record['features']['description']}: they compare with nothing measured "
            f"elsewhere."
        )
    return found


def _record(
    config: ReproductionConfig, metrics: Rows, opponent: Opponent, measured: Measured, copies: dict[str, Any]
) -> dict[str, Any]:
    seconds, seen = training_time(metrics)
    other_seconds, other_seen = training_time(read_metrics(opponent.run / "metrics.jsonl"))
    return {
        "config": asdict(config),
        "ddpm": {"images_seen": seen, "seconds": round(seconds, 1), "scores": measured.ddpm.row()},
        "dcgan": {
            "chosen": opponent.chosen, "images_seen": opponent.images_seen, "images_seen_at_the_end": other_seen,
            "seconds_at_the_end": round(other_seconds, 1), "fid_at_the_end": opponent.fid_at_the_end,
            "trials": [asdict(trial) for trial in opponent.trials], "scores": measured.dcgan.row(),
        },
        "floor": measured.floor.row(),
        "copies": copies,
        "claims": [asdict(claim) for claim in measured.claims],
        "dial": [mark.row() for mark in measured.marks],
    }  # fmt: skip


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _figures(folder: Path, config: ReproductionConfig, drawings: Drawings) -> list[tuple[str, str, Path]]:
    """Title, note and file of each picture, in the paper's order; 7 and 8 are drawn with their images."""
    first, second = config.figure_from_data, config.figure_of_dcgan
    scale = max(1, round(56 / drawings.reals.shape[-1]))
    count = min(COLUMNS, len(drawings.from_data))
    some, num_blends = 4 * COLUMNS, len(drawings.blends)
    pairs = min(COLUMNS, num_blends)
    pictures = {
        first: [("held-out images", drawings.reals[:count]), ("drawn from them", drawings.from_data[:count])],
        second: [*_rows("DCGAN", drawings.of_dcgan[:some]), *_rows("DDPM", drawings.samples[:some])],
        9: [("image", drawings.reals[:pairs]), ("partner", drawings.reals[num_blends:][:pairs]),
            ("paste", drawings.pastes[:pairs]), ("blend", drawings.blends[:pairs])],
    }  # fmt: skip
    for number, rows in pictures.items():
        report.save_labelled_rows(rows, folder / f"figure-{number}.png", scale=scale)
    notes = {
        first: f"Held-out images, noised to t = {UNRELATED} and denoised.",
        second: "New images of both models, not chosen.",
        7: f"An image, noised to t = {UNRELATED} once, and copies of that, each denoised.",
        8: f"The same from t = {SIMILAR}.",
        9: f"The right half of one image pasted into another, noised to t = {SIMILAR} and denoised.",
    }
    return [(f"Figure {number}", note, folder / f"figure-{number}.png") for number, note in notes.items()]


def _rows(name: str, images: np.ndarray) -> Sequence[tuple[str, np.ndarray]]:
    return [(name if first == 0 else "", images[first : first + COLUMNS]) for first in range(0, len(images), COLUMNS)]


def _dial_charts(marks: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Similarity by start timestep, each beside its control."""
    if not marks:
        return []
    starts = [float(mark["start"]) for mark in marks]

    def chart(title: str, lines: Mapping[str, Callable[[Any], float]]) -> Chart:
        curves = [Curve(name, starts, [of(mark) for mark in marks], marked=True) for name, of in lines.items()]
        return Chart(title, curves, over="start timestep")

    ratios = {
        "to the input": lambda mark: mark["to_input"]["ratio"][0],
        "to each other": lambda mark: mark["among_siblings"]["ratio"][0], "random pairs": lambda mark: 1.0,
    }  # fmt: skip
    alike = {
        "input and variation": itemgetter("ssim_to_input"),
        "two variations of one input": itemgetter("ssim_among_siblings"), "random pairs": itemgetter("ssim_at_random"),
    }  # fmt: skip
    kept = {"input and variation": itemgetter("same_class"), "random pairs": itemgetter("same_class_at_random")}
    drawn = [chart("feature distance, share of random pairs'", ratios), chart("SSIM", alike)]
    return drawn if marks[0]["same_class"] is None else [*drawn, chart("share of the same class", kept)]
