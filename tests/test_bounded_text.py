"""YAML and JSON of anybody: values, or one line; never a traceback, more than a second or 200 MiB."""

import ast
import os
import re
import resource
import time

import pytest

from fastddpm.config import load_config
from fastddpm.config.bounded_text import MAX_CHARACTERS, MAX_VALUES, from_yaml, read_facts
from tests.generated_tables import PROJECT

NINE = ", ".join(["*{0}"] * 9)
BOMB = "a: &a [1]\n" + "".join(f"{b}: &{b} [{NINE.format(a)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
REFUSED = {
    "aliases that double": BOMB,
    "merges that double": BOMB.replace("[1]", "{k: 1}").replace("[*", "{<<: [*").replace("]\n", "]}\n"),
    "an alias in its own list": "a: &a [*a]",
    "an alias in its own section": "a: &a\n  b: *a",
    "brackets": "a: " + "[" * 20_000,
    "question marks": "? " * 20_000,
    "dashes": "- " * 20_000,
    "many values": "a: [" + "1, " * 40_000 + "]",
    "many characters": "#" * (MAX_CHARACTERS + 1),
    "a number that is none": "a: !!int x",
    "a date that is none": "a: !!timestamp x",
    "a truth that is none": "a: !!bool x",
    "code": "a: !!python/object/apply:os.getcwd []",
    "a list as name": "? [a]\n: 1",
}


def in_a_line(do, wanted: str = "") -> None:
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=wanted) as refusal:
        do()
    assert "\n" not in str(refusal.value)
    assert time.process_time() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 2**10


@pytest.mark.parametrize("case", REFUSED)
def test_what_grows_without_end_is_refused_in_a_line(tmp_path, case):
    path = tmp_path / "config.yaml"
    path.write_text(REFUSED[case])
    in_a_line(lambda: load_config(path), re.escape(str(path)))
    in_a_line(lambda: read_facts(path), re.escape(str(path)))
    if "\n" not in REFUSED[case]:
        in_a_line(lambda: load_config(None, {"data.source": REFUSED[case]}), "data.source")


def test_aliases_are_taken_up_to_the_limit():
    assert from_yaml("a: &a {k: 1}\nb: {<<: *a, l: 2}\nc: *a") == {"a": {"k": 1}, "b": {"k": 1, "l": 2}, "c": {"k": 1}}
    # the list, its first value with ten in it, and so many aliases of eleven
    fits = (MAX_VALUES - 12) // 11
    text = "[&a [{}]{}]"
    assert len(from_yaml(text.format("1, " * 10, ", *a" * fits))) == fits + 1
    with pytest.raises(ValueError, match="5,000 values"):
        from_yaml(text.format("1, " * 10, ", *a" * (fits + 1)))


@pytest.mark.parametrize("name", ["config.yaml", "model_index.json"])
def test_large_files_and_pipes_are_not_read(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**40)
    in_a_line(lambda: read_facts(tmp_path / name), "larger than 4 MiB")
    in_a_line(lambda: load_config(tmp_path / name), "larger than 4 MiB")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    in_a_line(lambda: read_facts(tmp_path / name), f"{name} is missing")


def test_one_loader_reads_all_yaml():
    for path in (PROJECT / "fastddpm").rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "yaml" in text else ():
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            reads = re.search(r"yaml\.(\w*load\w*|compose\w*|parse|scan)$", name)
            assert reads is None or path.stem == "bounded_text", path
