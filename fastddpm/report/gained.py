"""The page of what augmentation gains: a table for each way to train the generator, and plots over t and K."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from fastddpm.report.charts import Chart
from fastddpm.report.pieces import cards, charts, code, save_document, section, table


@dataclass(frozen=True)
class GainTable:
    """What came of one way to train the generator; plain text."""

    title: str
    note: str
    """how it was trained"""
    head: Sequence[str]
    accuracies: Sequence[Sequence[str]]
    """of each number of labelled images: accuracy of each condition"""
    differences: Sequence[Sequence[str]]
    """comparison, number of labelled images, difference, verdict"""
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Gained:
    """What the page says; plain text, escaped here."""

    title: str
    state: str
    facts: Sequence[tuple[str, str]]
    limits: Sequence[str]
    """sentences: what the numbers do not say"""
    tables: Sequence[GainTable]
    command: str
    config: str
    """every setting, as YAML"""


def save_gain(path: Path, about: Gained) -> None:
    """Write the page in one move."""
    limits = "".join(f"<li>{escape(sentence)}</li>" for sentence in about.limits)
    save_document(
        path,
        about.title,
        about.state,
        [
            cards(about.facts),
            *(piece for found in about.tables for piece in _sections(found)),
            section("What the numbers do not say", f"<ul>{limits}</ul>" if limits else ""),
            section("Again", code(about.command)),
            section("All settings", f"<details><summary>config.yaml</summary>{code(about.config)}</details>"),
        ],
    )


def _sections(found: GainTable) -> list[str]:
    heads = ("compared", "labelled images", "difference in points of accuracy (95 % interval)", "verdict")
    note = f"<p>{escape(found.note)}</p>"
    return [
        section(found.title, note + table(found.head, found.accuracies)),
        section("", table(heads, found.differences)),
        section("", charts(found.charts)),
    ]
