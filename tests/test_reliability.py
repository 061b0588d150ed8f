"""docs/reliability.md, docs/surprises.md and launch/README.md against the tests that they name."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
TESTS = "\n".join(path.read_text() for path in sorted((PROJECT / "tests").rglob("test_*.py")))
NAMES = re.findall(r"^def (test_\w+)", TESTS, re.MULTILINE)


def test_every_fault_of_the_table_has_a_test_and_every_such_test_stands_in_it():
    table = (PROJECT / "docs" / "reliability.md").read_text().partition("## Every fault")[2]
    listed = set(re.findall(r"F(\d+)", " ".join(row.split("|")[1] for row in table.splitlines() if row[:3] == "| F")))
    tested = {number for name in NAMES for number in re.findall(r"(?<=_)f(\d+)(?=_)", name)}
    assert listed == tested
    assert len(listed) > 25


@pytest.mark.parametrize("page", ["docs/reliability.md", "docs/surprises.md", "launch/README.md"])
def test_tests_that_a_page_names_are_there(page):
    text = (PROJECT / page).read_text()
    named = re.findall(r"`(test_\w+)", text)
    assert named
    missing = [name for name in named if not any(test.startswith(name) for test in NAMES)]
    files = [name for name in re.findall(r"(?:tests/\w+/)?test_\w+\.py", text) if name.split("/")[-1] not in ALL_FILES]
    assert not missing + files


ALL_FILES = {path.name for path in (PROJECT / "tests").rglob("test_*.py")}
