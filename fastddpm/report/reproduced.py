"""The page of a reproduction: claims with their verdicts, the figures, the dial, the opponent's settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fastddpm.report.charts import Chart, Curve
from fastddpm.report.pieces import cards, charts, code, picture, save_document, section, table


@dataclass(frozen=True)
class Reproduced:
    """What the page says; plain text, escaped here."""

    title: str
    state: str
    facts: Sequence[tuple[str, str]]
    """names and values of the data, the models and the machine"""
    limits: Sequence[str]
    """sentences: what the numbers do not say"""
    claims: Sequence[Mapping[str, Any]]
    """figure, claim, measured, control, verdict, settles"""
    figures: Sequence[tuple[str, str, Path]]
    """title, what it shows, picture"""
    dial: Sequence[Mapping[str, Any]]
    """by start timestep, as in report.json"""
    scores: Sequence[Sequence[str]]
    """of each model: name, FID, KID, precision, recall"""
    trials: Sequence[Sequence[str]]
    """of the opponent: name, settings, images seen, FID"""
    copies: str
    """whether samples copy training images, in words"""
    curves: Sequence[Chart]
    """of training"""
    command: str
    config: str
    """every setting, as YAML"""


def save_reproduction(path: Path, about: Reproduced) -> None:
    """Write the page in one move, pictures inside."""
    columns = ("figure", "claim", "measured", "control", "verdict", "settles")
    rows = [[str(claim[name]) for name in columns] for claim in about.claims]
    heads = ("figure", "claim", "measured", "control", "verdict", "what would settle it, or make it surer")
    scores = table(("images", "FID", "KID", "precision", "recall"), about.scores)
    trials = table(("settings", "what differs from the paper's by Radford et al.", "images seen", "FID"), about.trials)
    limits = "".join(f"<li>{escape(sentence)}</li>" for sentence in about.limits)
    save_document(
        path,
        about.title,
        about.state,
        [
            section("Claims", table(heads, rows)),
            section("What the numbers do not say", f"<ul>{limits}</ul>" if limits else ""),
            cards(about.facts),
            *(section(title, picture(file, note, is_sheet=True)) for title, note, file in about.figures),
            section("The dial of similarity", charts(dial_charts(about.dial))),
            section("Scores", f"{scores}<p>{escape(about.copies)}</p>"),
            section("The DCGAN's settings", trials),
            section("Training", charts(about.curves)),
            section("Again", code(about.command)),
            section("All settings", f"<details><summary>config.yaml</summary>{code(about.config)}</details>"),
        ],
    )


def dial_charts(marks: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Similarity by start timestep, each beside its control."""
    if not marks:
        return []
    starts = [float(mark["start"]) for mark in marks]

    def line(name: str, values: Sequence[float]) -> Curve:
        return Curve(name, starts, values, marked=True)

    ratios = [
        line("to the input", [mark["to_input"]["ratio"][0] for mark in marks]),
        line("to each other", [mark["among_siblings"]["ratio"][0] for mark in marks]),
        line("random pairs", [1.0] * len(marks)),
    ]
    alike = [
        line("input and variation", [mark["ssim_to_input"] for mark in marks]),
        line("two variations of one input", [mark["ssim_among_siblings"] for mark in marks]),
        line("random pairs", [mark["ssim_at_random"] for mark in marks]),
    ]
    drawn = [
        Chart("feature distance, share of random pairs'", ratios, over="start timestep"),
        Chart("SSIM", alike, over="start timestep"),
    ]
    if marks[0]["same_class"] is not None:
        kept = [
            line("input and variation", [mark["same_class"] for mark in marks]),
            line("random pairs", [mark["same_class_at_random"] for mark in marks]),
        ]
        drawn.append(Chart("share of the same class", kept, over="start timestep"))
    return drawn
