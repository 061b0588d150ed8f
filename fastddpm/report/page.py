"""report.html: everything about one run on one page, in one file that asks nothing of a network."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

from fastddpm.report.charts import Rows, charts_of
from fastddpm.report.pieces import cards, charts, code, picture, save_document, section, tree

_PICTURES = {
    "samples.png": ("Samples", "New images, drawn from the averaged weights; image i comes from seed + i."),
    "denoising.png": ("From noise to image", "One strip a sample: the same image at later and later steps."),
    "variations.png": ("Variations", "Images, noised to a timestep and denoised: the later the start, the freer."),
    "progress.png": ("As training went on", "The same seeds at different times: a row a time, a column a seed."),
    "progress.gif": ("", "The same as an animation."),
    "nearest.png": ("Nearest training images", "Each sample above the training image that is nearest to it."),
    "data.png": ("The training images", "Some of them, as they are trained on."),
}

_SHEETS = ("progress.png", "nearest.png", "variations.png", "data.png")
"""pictures with words in them"""


@dataclass(frozen=True)
class About:
    """What the page says beside the pictures and the curves; plain text, escaped here."""

    title: str
    state: str
    """such as "finished", or how far the run is"""
    facts: Sequence[tuple[str, str]]
    """name and value of what was trained, where and how fast"""
    commands: Sequence[tuple[str, str]]
    """what lines of code do, and the lines"""
    config: str
    """every setting, as YAML"""
    verdict: tuple[Literal["good", "bad", "open"], str] | None = None
    """whether samples copy training images, in words"""
    preview: Path | None = None
    """the newest grid of samples, shown while there is no samples.png of the end"""


def save_page(folder: Path, about: About, rows: Rows) -> None:
    """Write `folder`/report.html and, for programs, about.json, each in one move.

    Args:
        folder: the run's; of its pictures, those that exist are shown, and the counts of its data.json.
        rows: of metrics.jsonl.
    """
    sections = [
        cards(about.facts),
        _samples(folder, about.preview),
        _picture_section(folder, "progress.png", "progress.gif"),
        section("Curves", charts(charts_of(rows))),
        _nearest(folder, about.verdict),
        _picture_section(folder, "denoising.png"),
        _picture_section(folder, "variations.png"),
        _data(folder),
        section("Load it", "".join(f"<p>{escape(what)}</p>{code(lines)}" for what, lines in about.commands)),
        section("All settings", f"<details><summary>config.yaml</summary>{code(about.config)}</details>"),
    ]
    save_document(folder / "report.html", about.title, about.state, sections)
    record = {"state": about.state, "facts": [list(fact) for fact in about.facts], "verdict": about.verdict}
    temporary = folder / ".about.json"
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    temporary.replace(folder / "about.json")


def _samples(folder: Path, preview: Path | None) -> str:
    """The grid of the end, or the newest preview while there is none."""
    title, note = _PICTURES["samples.png"]
    if preview is not None:
        return section(title, picture(preview, note))
    others = "".join(
        picture(path, f"The same seeds, drawn from the average {path.stem.removeprefix('samples-')}.")
        for path in sorted(folder.glob("samples-ema-*.png"))
    )
    return section(title, picture(folder / "samples.png", note) + others)


def _picture_section(folder: Path, *names: str) -> str:
    body = "".join(_shown(folder / name) for name in names)
    return section(_PICTURES[names[0]][0], body)


def _shown(path: Path) -> str:
    return picture(path, _PICTURES[path.name][1], is_sheet=path.name in _SHEETS)


def _nearest(folder: Path, verdict: tuple[str, str] | None) -> str:
    title, _ = _PICTURES["nearest.png"]
    if verdict is None:
        return ""
    kind, text = verdict
    body = f'<p class="verdict {escape(kind)}">{escape(text)}</p>{_shown(folder / "nearest.png")}'
    return section(title, body)


def _data(folder: Path) -> str:
    """The data report, as far as the run folder holds one: data.json's values as a list, data.png."""
    title, _ = _PICTURES["data.png"]
    return section(title, _data_facts(folder / "data.json") + _shown(folder / "data.png"))


def _data_facts(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return f"<p>{escape(f'data.json cannot be read: {error}')}</p>"
    return tree({name.replace("_", " "): value for name, value in record.items() if value not in ({}, [])})
