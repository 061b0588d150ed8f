"""report.html: everything about one run on one page, in one file that asks nothing of a network."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from fastddpm.report.charts import Rows, charts_of, to_svg

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
"""pictures with words in them, which shrinking makes unreadable: a narrow window scrolls over them"""

_WIDE = ' class="wide"'


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
    """Write `folder`/report.html in one move.

    Args:
        folder: the run's; of its pictures, those that exist are shown, and the counts of its data.json.
        rows: of metrics.jsonl.
    """
    sections = [
        _cards(about.facts),
        _samples(folder, about.preview),
        _picture_section(folder, "progress.png", "progress.gif"),
        _section("Curves", f'<div class="charts">{"".join(_chart(c) for c in charts_of(rows))}</div>' if rows else ""),
        _nearest(folder, about.verdict),
        _picture_section(folder, "denoising.png"),
        _picture_section(folder, "variations.png"),
        _data(folder),
        _section("Load it", "".join(f"<p>{escape(what)}</p>{_code(code)}" for what, code in about.commands)),
        _section("All settings", f"<details><summary>config.yaml</summary>{_code(about.config)}</details>"),
    ]
    style = (files("fastddpm.report") / "page.css").read_text()
    temporary = folder / ".report.html"
    temporary.write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(about.title)}</title><style>{style}</style></head>\n<body><main>"
        f'<header><h1>{escape(about.title)}</h1><p class="state">{escape(about.state)}</p></header>\n'
        + "\n".join(section for section in sections if section)
        + "</main></body></html>\n",
        encoding="utf-8",
    )
    temporary.replace(folder / "report.html")


def _cards(facts: Sequence[tuple[str, str]]) -> str:
    cells = "".join(
        f"<div{_WIDE if len(value) > 30 else ''}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts
    )
    return f'<section><dl class="cards">{cells}</dl></section>'


def _section(title: str, body: str) -> str:
    if not body:
        return ""
    return f"<section>{f'<h2>{escape(title)}</h2>' if title else ''}{body}</section>"


def _samples(folder: Path, preview: Path | None) -> str:
    """The grid of the end, or the newest preview while there is none."""
    title, note = _PICTURES["samples.png"]
    if preview is not None:
        return _section(title, _picture(preview, note))
    others = "".join(
        _picture(path, f"The same seeds, drawn from the average {path.stem.removeprefix('samples-')}.")
        for path in sorted(folder.glob("samples-ema-*.png"))
    )
    return _section(title, _picture(folder / "samples.png", note) + others)


def _picture_section(folder: Path, *names: str) -> str:
    body = "".join(_picture(folder / name, _PICTURES[name][1]) for name in names)
    return _section(_PICTURES[names[0]][0], body)


def _picture(path: Path, note: str) -> str:
    """An `<img>` that carries its file, or nothing when there is none."""
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    kind = "gif" if path.suffix == ".gif" else "png"
    shape = "sheet" if path.name in _SHEETS else "grid"
    return (
        f'<figure><div class="{shape}"><img alt="{escape(note)}" src="data:image/{kind};base64,{data}"></div>'
        f"<figcaption>{escape(note)}</figcaption></figure>"
    )


def _chart(chart: Any) -> str:
    return f'<figure class="chart"><figcaption>{escape(chart.title)}</figcaption>{to_svg(chart)}</figure>'


def _nearest(folder: Path, verdict: tuple[str, str] | None) -> str:
    title, note = _PICTURES["nearest.png"]
    if verdict is None:
        return ""
    kind, text = verdict
    body = f'<p class="verdict {escape(kind)}">{escape(text)}</p>{_picture(folder / "nearest.png", note)}'
    return _section(title, body)


def _data(folder: Path) -> str:
    """The data report, as far as the run folder holds one: data.json's values as a list, data.png."""
    title, note = _PICTURES["data.png"]
    return _section(title, _data_facts(folder / "data.json") + _picture(folder / "data.png", note))


def _data_facts(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return f"<p>{escape(f'data.json cannot be read: {error}')}</p>"
    return _tree({name.replace("_", " "): value for name, value in record.items() if value not in ({}, [])})


def _tree(value: Any) -> str:
    """Plain JSON as nested tables; long lists are cut, and it is said."""
    if isinstance(value, dict):
        items = list(value.items())
        body = "".join(f"<tr><th>{escape(str(name))}</th><td>{_tree(v)}</td></tr>" for name, v in items[:50])
        return f"<table>{body}{_rest(len(items) - 50)}</table>"
    if isinstance(value, list):
        shown = "".join(f"<li>{_tree(v)}</li>" for v in value[:20])
        return f"<ul>{shown}</ul>{f'<p>and {len(value) - 20:,} more</p>' if len(value) > 20 else ''}"
    return escape(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))


def _rest(count: int) -> str:
    return f'<tr><td colspan="2">and {count:,} more</td></tr>' if count > 0 else ""


def _code(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>"
