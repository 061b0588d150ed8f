"""The README's promises that a quick test can hold; `.ci/run` runs its commands."""

import re
from pathlib import Path

import pytest

import fastddpm
from fastddpm.config import load_config

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text()


def tree() -> list[str]:
    """The paths of the README's file tree."""
    block = next(b for b in README.split("```")[1::2] if "draws.py" in b and "config/" in b)
    paths, parent = [], ""
    for line in block.strip().splitlines():
        name = line.split()[0]
        parent = "" if not line.startswith(" ") else parent
        paths.append(parent + name)
        parent = name if name.endswith("/") and not line.startswith(" ") else parent
    return paths


def test_every_file_of_the_tree_is_there():
    paths = tree()
    assert len(paths) > 15
    for path in paths:
        assert (PROJECT / path).exists(), path


def test_every_module_is_in_the_tree():
    top = {p.name for p in (PROJECT / "fastddpm").iterdir() if not p.name.startswith(("_", "py."))}
    named = {path.removeprefix("fastddpm/").split("/")[0] for path in tree() if path.startswith("fastddpm/")}
    assert top - {"configs"} <= named


@pytest.mark.parametrize("target", ["demo", "test", "check", "test-all", "bench", "check-diffusers"])
def test_make_targets_are_there(target):
    assert f"make {target}" in README
    assert f"\n{target}:" in (PROJECT / "Makefile").read_text()


def test_six_files_to_read_first_are_there():
    line = README.split("Six files to read first:")[1].split("\n\n")[0]
    names = re.findall(r"`([^`]+)`", line)
    assert len(names) == 6
    for name in names:
        assert (PROJECT / "fastddpm" / name).exists(), name


def test_pictures_and_links_are_there():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert "docs/images/samples.png" in links
    for link in links:
        page, _, place = link.partition("#")
        assert (PROJECT / page).exists(), link
        if place:
            headings = re.findall(r"^#+ (.+)$", (PROJECT / page).read_text(), re.MULTILINE)
            assert place in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}, (
                link
            )


def test_python_snippets_use_public_names():
    imported = re.findall(r"^from fastddpm import (.+)$", README, re.MULTILINE)
    assert imported
    for names in imported:
        for name in names.split(", "):
            assert name in fastddpm.__all__


def test_the_demos_length_is_fixed_in_images():
    assert load_config("quickstart").train.num_images_seen == 160_000
    assert load_config("quickstart").sample.guidance_scale == 1.5, "as the README says of its picture"


def test_installing_says_the_size_of_the_cuda_wheel_before_the_commands():
    assert README.index("CUDA build of several GB") < README.index("make demo ")
    assert "pip install -c constraints.txt -e ." in README
