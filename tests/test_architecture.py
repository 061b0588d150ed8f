"""Over the whole library: a class name means one thing, a function fits a page, what is slow is imported when used."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastddpm

LIBRARY = Path(fastddpm.__file__).parent
MAX_LINES = 60
TWICE = {"FastDDPMPipeline"}  # a saved folder brings its own, in pipeline.py: diffusers must find it by the same name


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(LIBRARY.rglob("*.py")):
        yield str(path.relative_to(LIBRARY)), ast.parse(path.read_text())


def test_no_class_name_is_defined_twice():
    places = defaultdict(list)
    for module, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module)
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in TWICE} == {}


def test_no_function_is_longer_than_a_page():
    """From its first line, with signature and docstring, to its last."""
    long = {
        f"{module}: {node.name}": node.end_lineno - node.lineno + 1
        for module, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= MAX_LINES
    }
    assert long == {}


@pytest.mark.slow
def test_the_verbs_import_no_matplotlib_before_a_figure_is_drawn():
    modules = ("sample.samples", "sample.variations", "sample.blends", "detect.detect", "augment.augment",
               "evaluate.evaluate")  # fmt: skip
    code = (
        "import sys; import fastddpm.hub, fastddpm.training.finish, fastddpm.training.page\n"
        f"import {', '.join(f'fastddpm.verbs.{name}' for name in modules)}\n"
        "assert 'matplotlib' not in sys.modules, 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
