"""Pieces of pages in one file, which ask nothing of a network: what is given as text is escaped here."""

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastddpm.report.charts import Chart, to_svg

_WIDE = ' class="wide"'


def save_document(path: Path, title: str, state: str, sections: Sequence[str]) -> None:
    """Write a page in one move.

    Args:
        state: a line under the title.
        sections: pieces; empty ones are left out.
    """
    style = (files("fastddpm.report") / "page.css").read_text()
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body><main>"
        f'<header><h1>{escape(title)}</h1><p class="state">{escape(state)}</p></header>\n'
        + "\n".join(section for section in sections if section)
        + "</main></body></html>\n",
        encoding="utf-8",
    )
    temporary.replace(path)


def cards(facts: Sequence[tuple[str, str]]) -> str:
    """Names and values."""
    cells = "".join(
        f"<div{_WIDE if len(value) > 30 else ''}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts
    )
    return f'<section><dl class="cards">{cells}</dl></section>'


def section(title: str, body: str) -> str:
    """With its heading, or nothing without a body."""
    if not body:
        return ""
    return f"<section>{f'<h2>{escape(title)}</h2>' if title else ''}{body}</section>"


def picture(path: Path, note: str, *, is_sheet: bool = False) -> str:
    """An `<img>` that carries its file, or nothing when there is none.

    Args:
        is_sheet: it has words in it, which shrinking makes unreadable: a narrow window scrolls over it.
    """
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    kind = "gif" if path.suffix == ".gif" else "png"
    shape = "sheet" if is_sheet else "grid"
    return (
        f'<figure><div class="{shape}"><img alt="{escape(note)}" src="data:image/{kind};base64,{data}"></div>'
        f"<figcaption>{escape(note)}</figcaption></figure>"
    )


def charts(drawn: Sequence[Chart]) -> str:
    """Side by side, where there is room; nothing of none."""
    return f'<div class="charts">{"".join(map(_chart, drawn))}</div>' if drawn else ""


def _chart(chart: Chart) -> str:
    return f'<figure class="chart"><figcaption>{escape(chart.title)}</figcaption>{to_svg(chart)}</figure>'


def tree(value: Any) -> str:
    """Plain JSON as nested tables; long lists are cut, and it is said."""
    if isinstance(value, dict):
        items = list(value.items())
        body = "".join(f"<tr><th>{escape(str(name))}</th><td>{tree(v)}</td></tr>" for name, v in items[:50])
        return f"<table>{body}{_rest(len(items) - 50)}</table>"
    if isinstance(value, list):
        shown = "".join(f"<li>{tree(v)}</li>" for v in value[:20])
        return f"<ul>{shown}</ul>{f'<p>and {len(value) - 20:,} more</p>' if len(value) > 20 else ''}"
    return escape(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))


def _rest(count: int) -> str:
    return f'<tr><td colspan="2">and {count:,} more</td></tr>' if count > 0 else ""


def code(text: str) -> str:
    """As it stands."""
    return f"<pre><code>{escape(text)}</code></pre>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """With a heading; a cell that is a verdict has its colour."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return f'<div class="sheet"><table class="ruled"><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


_VERDICTS = {
    "holds": "good", "does not hold": "bad", "cannot tell": "open",
    "pays": "good", "costs": "bad", "no difference shown": "open",
}  # fmt: skip


def _cell(text: str) -> str:
    kind = f' class="{_VERDICTS[text]}"' if text in _VERDICTS else ""
    return f"<td{kind}>{escape(text)}</td>"
