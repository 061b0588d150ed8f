"""Templates: what is put in is text, and must be there."""

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

import fastddpm
from fastddpm.report.page_pieces import render


def test_a_missing_value_is_an_error_not_a_gap():
    with pytest.raises(UndefinedError, match="'state' is undefined"):
        render("report/page.html", title="a run")


def test_only_pages_are_escaped():
    assert "<title>&lt;b&gt;</title>" in render("report/page.html", title="<b>", state="")
    assert "font-family: ui-monospace" in render("report/page.html", title="", state="")
    assert '"Segoe UI"' in render("report/page.html", title="", state=""), "the style is no text of a page"


def test_nothing_but_a_chart_is_taken_as_it_is():
    """Charts are drawn here, by matplotlib, which escapes their words."""
    pages = list(Path(fastddpm.__file__).parent.rglob("*.html"))
    assert len(pages) > 5
    for page in pages:
        text = page.read_text()
        assert "autoescape" not in text
        assert set(re.findall(r"(\w+) *\| *safe\b", text)) <= {"svg"}, page
