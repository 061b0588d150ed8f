"""report.json and report.html of a reproduction, and the pictures in it."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from fastddpm import report
from fastddpm.config import to_yaml
from fastddpm.measures.fidelity import Scores
from fastddpm.report.charts import charts_of
from fastddpm.studies.paper.claims import Measured
from fastddpm.studies.paper.drawings import SIMILAR, UNRELATED, Drawings
from fastddpm.studies.paper.opponents import Opponent
from fastddpm.studies.paper.settings import ReproductionConfig
from fastddpm.training.metrics import read_metrics, training_time

COLUMNS = 12


@dataclass(frozen=True)
class About:
    """What was done, beside the numbers."""

    config: ReproductionConfig
    ddpm: Path
    """its run"""
    training: Mapping[str, Any]
    held_out: Mapping[str, Any]
    """source, split and number of the images"""
    opponent: Opponent
    features: Mapping[str, Any]
    """which network the scores were measured in"""
    classifier: Mapping[str, Any]
    """what is known of the network that sees classes: `accuracy`, if there are any"""
    device: str
    num_processes: int
    versions: str


def write(folder: Path, about: About, drawings: Drawings, measured: Measured, copies: dict[str, Any]) -> None:
    """Write the figures, report.json and report.html."""
    figures = _figures(folder, about.config, drawings)
    record = _record(about, measured, copies)
    temporary = folder / "report.json.tmp"
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(temporary, folder / "report.json")
    holding = sum(claim.verdict == "holds" for claim in measured.claims)
    page = report.Reproduced(
        title=about.config.title,
        state=f"{holding} of {len(measured.claims)} claims hold, with {about.config.budget} of training for each model",
        facts=_facts(about, record),
        limits=limits(about, record),
        claims=record["claims"],
        figures=figures,
        dial=record["dial"],
        scores=_score_rows(measured),
        trials=_trial_rows(about.opponent, measured.floor),
        copies=_copies_in_words(copies),
        curves=charts_of(read_metrics(about.ddpm / "metrics.jsonl")),
        command=f"fastddpm reproduce --config {folder / 'config.yaml'}",
        config=to_yaml(about.config),
    )
    report.save_reproduction(folder / "report.html", page)


def lines_of(measured: Measured) -> list[str]:
    """The claims to read in a terminal."""
    return [
        f"figure {c.figure}: {c.claim}: {c.verdict.upper()}\n    {c.measured}\n    {c.control}" for c in measured.claims
    ]


def limits(about: About, record: Mapping[str, Any]) -> list[str]:
    """What a reader must know before believing the table."""
    ddpm, measure = record["ddpm"], about.config.measure
    num_training, budget = about.training["of"], about.config.budget_seconds
    epochs = ddpm["images_seen"] / num_training
    found = [
        f"The DDPM saw {ddpm['images_seen']:,} images, {epochs:.1f} epochs of {num_training:,}; the paper's saw 1,000.",
        f"Images were drawn in {measure.num_inference_steps} reverse steps, fewer from lower starts; the paper takes "
        f"all.",
        "Figures 4 and 6 hold by the paper's word, about as good: intervals that overlap may still hide a difference, "
        "and both models may be far from real images.",
        "One seed of training for each model: how much another seed would change is not known.",
        f"The DCGAN's settings were chosen by FID on the same held-out images, of {len(about.opponent.trials)}; the "
        f"DDPM's were not.",
    ]
    off = [
        f"the {name} took {_time(seconds)}"
        for name, seconds in (("DDPM", ddpm["seconds"]), ("DCGAN", record["dcgan"]["seconds_at_the_end"]))
        if not 0.8 <= seconds / budget <= 1.25
    ]
    if off:
        found.append(
            f"The budget of {about.config.budget} was turned into images by a short measurement; the machine was "
            f"faster or slower later: {', '.join(off)}."
        )
    if about.config.features is None:
        found.append(
            f"Distances and scores are in {about.features['description']}: they compare with nothing measured "
            f"elsewhere."
        )
    return found


def _record(about: About, measured: Measured, copies: dict[str, Any]) -> dict[str, Any]:
    seconds, seen = training_time(read_metrics(about.ddpm / "metrics.jsonl"))
    other_seconds, other_seen = training_time(read_metrics(about.opponent.run / "metrics.jsonl"))
    return {
        "config": asdict(about.config),
        "device": about.device,
        "num_processes": about.num_processes,
        "versions": about.versions,
        "training": dict(about.training),
        "held_out": dict(about.held_out),
        "features": dict(about.features),
        "classifier": dict(about.classifier),
        "ddpm": {"images_seen": seen, "seconds": round(seconds, 1), "scores": measured.ddpm.row()},
        "dcgan": {
            "chosen": about.opponent.chosen,
            "images_seen": about.opponent.images_seen,
            "images_seen_at_the_end": other_seen,
            "seconds_at_the_end": round(other_seconds, 1),
            "fid_at_the_end": about.opponent.fid_at_the_end,
            "trials": [asdict(trial) for trial in about.opponent.trials],
            "scores": measured.dcgan.row(),
        },
        "floor": measured.floor.row(),
        "copies": copies,
        "claims": [claim.row() for claim in measured.claims],
        "dial": [mark.row() for mark in measured.marks],
    }


def _facts(about: About, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    ddpm, dcgan, accuracy = record["ddpm"], record["dcgan"], about.classifier.get("accuracy")
    return [
        ("budget of each model", str(about.config.budget)),
        ("training images", f"{about.training['of']:,}"),
        ("held-out images in the scores", f"{about.config.measure.num_reals:,}"),
        ("DDPM", f"{ddpm['images_seen']:,} images in {_time(ddpm['seconds'])}"),
        (
            "DCGAN, the chosen one",
            f"{dcgan['images_seen_at_the_end']:,} images in {_time(dcgan['seconds_at_the_end'])}",
        ),
        ("features", str(about.features["description"])),
        *([("classes right, of other images", f"{accuracy:.1%}")] if accuracy is not None else []),
        ("device", about.device),
        ("versions", about.versions),
        ("source", about.config.source),
    ]


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _score_rows(measured: Measured) -> list[list[str]]:
    named = {
        "DDPM": measured.ddpm,
        "DCGAN": measured.dcgan,
        f"{measured.floor.num_samples:,} real images": measured.floor,
    }
    return [
        [name, *(_score(scores, key) for key in ("fid", "kid", "precision", "recall"))]
        for name, scores in named.items()
    ]


def _score(scores: Scores, name: str) -> str:
    value = f"{getattr(scores, name):.3g}"
    if name not in scores.intervals:
        return value
    low, high = scores.intervals[name]
    return f"{value} ({low:.3g} to {high:.3g})"


def _trial_rows(opponent: Opponent, least: Scores) -> list[list[str]]:
    rows = [
        [
            trial.name,
            ", ".join(f"{name.removeprefix('train.')} {value}" for name, value in trial.settings.items()) or "nothing",
            f"{trial.images_seen:,}",
            f"{trial.fid:.4g}",
        ]
        for trial in opponent.trials
    ]
    taken = (
        "compared" if opponent.images_seen == opponent.images_seen_at_the_end else "its trial is better and compared"
    )
    total = [
        f"{opponent.chosen}, whole budget",
        taken,
        f"{opponent.images_seen_at_the_end:,}",
        f"{opponent.fid_at_the_end:.4g}",
    ]
    return [*rows, total, ["real images", "", "", f"{least.fid:.4g}"]]


def _copies_in_words(copies: dict[str, Any]) -> str:
    return (
        f"Copies of training images among the DDPM's samples: {copies['verdict']}; {copies['num_close']} of "
        f"{copies['num_samples']:,} lie nearer to one than a twentieth of {copies['num_reals']} held-out images do."
    )


def _figures(folder: Path, config: ReproductionConfig, drawings: Drawings) -> list[tuple[str, str, Path]]:
    """Title, note and file of each picture, in the paper's order; 7 and 8 are drawn with their images."""
    first, second = config.figure_from_data, config.figure_of_dcgan
    scale = max(1, round(56 / drawings.reals.shape[-1]))
    count = min(COLUMNS, len(drawings.from_data))
    report.save_labelled_rows(
        [("held-out images", drawings.reals[:count]), ("drawn from them", drawings.from_data[:count])],
        folder / f"figure-{first}.png", scale=scale,
    )  # fmt: skip
    some = 4 * COLUMNS
    report.save_labelled_rows(
        [*_rows("DCGAN", drawings.of_dcgan[:some]), *_rows("DDPM", drawings.samples[:some])],
        folder / f"figure-{second}.png", scale=scale,
    )  # fmt: skip
    pairs = min(COLUMNS, len(drawings.blends))
    report.save_labelled_rows(
        [
            ("image", drawings.reals[:pairs]),
            ("partner", drawings.reals[len(drawings.blends) :][:pairs]),
            ("paste", drawings.pastes[:pairs]),
            ("blend", drawings.blends[:pairs]),
        ],
        folder / "figure-9.png", scale=scale,
    )  # fmt: skip
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
