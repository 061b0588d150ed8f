"""pyproject.toml: its ranges against the files of constraints beside it, and what it packs."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = Path(__file__).resolve().parents[1]
OF_THE_MACHINE = {"xformers"}  # which of them installs depends on the GPU


def requirements() -> list[Requirement]:
    """Those of the package and of its extras; not the package itself, which extras name."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return [each for each in map(Requirement, lines) if each.name != project["name"]]


def bounds(operator: str, found: list[Requirement]) -> set[tuple[str, Version]]:
    return {
        (canonicalize_name(each.name), Version(part.version))
        for each in found
        for part in each.specifier
        if part.operator == operator
    }


def pins(name: str) -> list[Requirement]:
    lines = (PROJECT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def test_every_lower_bound_is_the_one_that_was_run():
    named = [each for each in requirements() if each.name not in OF_THE_MACHINE]
    operators = {each.name: sorted(part.operator for part in each.specifier) for each in named}
    assert {name: found for name, found in operators.items() if found != [">="]} == {"jsonargparse": ["<", ">="]}
    assert bounds(">=", named) == bounds("==", pins("constraints-lowest.txt"))


def test_what_is_tested_lies_in_the_ranges():
    tested = dict(bounds("==", pins("constraints.txt")))
    for each in requirements():
        version = tested.get(canonicalize_name(each.name))
        assert version is None or version in each.specifier, each


def files_that_are_read(package: Path) -> set[Path]:
    """Templates, styles and scripts."""
    return {path for ending in ("html", "css", "js", "md") for path in package.rglob(f"*.{ending}")}


def test_every_template_is_packed():
    patterns = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    package = PROJECT / "fastddpm"
    packed = {path for pattern in patterns["fastddpm"] for path in package.glob(pattern)}
    assert len(files_that_are_read(package)) > 5
    assert files_that_are_read(package) <= packed


@pytest.mark.slow
def test_a_wheel_has_the_templates(tmp_path):
    copy = tmp_path / "copy"  # a build leaves things behind
    shutil.copytree(PROJECT / "fastddpm", copy / "fastddpm", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, copy / name)
    words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path), str(copy)]
    subprocess.run(words, check=True, capture_output=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    assert {str(path.relative_to(PROJECT)) for path in files_that_are_read(PROJECT / "fastddpm")} <= names
