"""Templates: what is put in is text, and must be there."""

import pytest
from jinja2 import UndefinedError

from fastddpm.report.pieces import render


def test_a_missing_value_is_an_error_not_a_gap():
    with pytest.raises(UndefinedError, match="'state' is undefined"):
        render("report/page.html", title="a run")


def test_only_pages_are_escaped():
    assert "<title>&lt;b&gt;</title>" in render("report/page.html", title="<b>", state="")
    assert "font-family: ui-monospace" in render("report/page.html", title="", state="")
    assert '"Segoe UI"' in render("report/page.html", title="", state=""), "the style is no text of a page"
