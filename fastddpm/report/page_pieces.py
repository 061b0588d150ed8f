"""Pages in one file that asks nothing of a network, from templates beside the verbs; what is put in is escaped."""

import base64
import json
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from fastddpm.files import write_text
from fastddpm.report.charts import to_svg


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("fastddpm", "."), autoescape=select_autoescape(["html"]), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters |= {"data_uri": _data_uri, "json": partial(json.dumps, indent=1), "svg": to_svg}
    return found


def render(template: str, **values: Any) -> str:
    """Fill a template.

    Args:
        template: its path in the package, such as `training/page.html`.
        values: its names; one that is missing is an error.
    """
    return _templates().get_template(template).render(values)


def save_document(path: Path, template: str, **values: Any) -> None:
    """Write a filled template."""
    write_text(path, render(template, **values))


def _data_uri(path: Path) -> str:
    kind = "gif" if path.suffix == ".gif" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
