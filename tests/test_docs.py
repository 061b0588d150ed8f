"""README and docs as a whole: words, links, commands, tables, and the voice of docstrings."""

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from fastddpm.cli import _config_of
from fastddpm.cli.parser import read_words
from fastddpm.cli.table_of_verbs import VERBS
from fastddpm.config.describe import options_of
from tests.generated_tables import PAGES, PROJECT, TABLES, generated

DOCS = PAGES[1:]
PACKAGE = sorted((PROJECT / "fastddpm").rglob("*.py"))
NO_BEGINNING = frozenset(
    ["of", "what", "whether", "which", "how", "where", "who", "as", "it", "its", "in", "for", "from", "those", "that",
     "this", "these", "they"]
)  # fmt: skip
"""words that no docstring begins with: it names a thing, or says what a function does"""


def test_readme_and_docs_stay_short():
    assert len(PAGES[0].read_text().split()) <= 900
    words = {page.name: len(page.read_text().split()) for page in DOCS}
    assert sum(words.values()) <= 20_000, words


def test_every_verb_has_a_page_of_its_name():
    missing = {verb.split()[0] for verb in VERBS} - {page.stem for page in DOCS}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_what_the_code_generates(page):
    assert page.read_text() == generated(page.read_text()), "run python -m tests.generated_tables"


def test_every_generated_table_stands_on_a_page():
    text = "".join(page.read_text() for page in PAGES)
    assert set(re.findall(r"<!-- generated: (\w+) -->", text)) == set(TABLES)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def words_of(page: Path) -> list[list[str]]:
    """Words of every command of fastddpm in the code blocks of a page, without comments."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("fastddpm ") and "[--" not in line:
                found.append(shlex.split(re.sub(r"(^|\s)#.*", "", line))[1:])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_taken_by_their_verbs(page):
    """Every option is one of the verb's, every value one that it takes; pictures need not be there."""
    for words in words_of(page):
        name = next(" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in VERBS)
        verb = VERBS[name]
        module, _, kind = verb.request.partition(":")
        config, rest = _config_of(verb, [word for word in words[len(name.split()) :] if word != "--dry_run"])
        request = getattr(import_module(f"fastddpm.{module}"), kind)
        assert isinstance(read_words(request, rest, positionals=verb.positionals, config=config), request), words


def docstrings(path: Path) -> list[tuple[int, str]]:
    """(line, text) of every docstring and of every text under a field."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            value = getattr(statement, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.append((statement.lineno, value.value))
    return found


def test_docstrings_begin_with_a_verb_or_the_thing():
    seen, wrong = 0, []
    for path in PACKAGE:
        for line, text in docstrings(path):
            seen += 1
            first = re.match(r"\w+", text.strip())
            if first and first[0].lower() in NO_BEGINNING:
                wrong.append(f"{path.relative_to(PROJECT)}:{line}: {text[:60]}")
    assert seen > 1_000
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_said_in_short_clauses(verb):
    module, _, kind = VERBS[verb].request.partition(":")
    for name, option in options_of(getattr(import_module(f"fastddpm.{module}"), kind)).items():
        for clause in re.split(r"(?<=[.;:])\s+", " ".join(option.meaning.split())):
            assert len(clause.split()) <= 25, (name, clause)


def test_variables_of_the_environment_stand_on_the_page():
    """Of our own code; what the libraries read is theirs."""
    names: set[str] = set()
    for path in PACKAGE:
        names |= set(re.findall(r"environ(?:\.get\(|\[)\W?([A-Z_]{3,})", path.read_text()))
    page = (PROJECT / "docs" / "train.md").read_text().split("## The environment")[1]
    assert names
    assert names == set(re.findall(r"^\| `([A-Z_]+)`", page, re.MULTILINE))


def test_every_record_is_named_by_a_page_or_a_record():
    results = PROJECT / "benchmarks" / "results"
    pages = [*PAGES, PROJECT / "benchmarks" / "README.md", *results.glob("*.md")]
    named = "".join(page.read_text() for page in pages)
    assert not [path.name for path in results.iterdir() if path.stem not in named]
