"""The README's promises that a quick test can hold. Its other commands are parsed by their verbs in test_docs.py."""

import re
from pathlib import Path

import pytest

import fastddpm
from fastddpm.config import load_config

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text()
FIRST_SCREEN = README.split("## ")[0]


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_targets_are_there(target):
    assert f"make {target} " in README
    assert f"\n{target}:" in (PROJECT / "Makefile").read_text()


@pytest.mark.parametrize("said", ["docs/images/samples.png", "no download", "No GPU", "Hirokawa", "2006.11239"])
def test_the_first_screen_says_what_a_stranger_asks(said):
    assert said in FIRST_SCREEN


def test_the_environment_is_activated_before_the_first_command():
    assert README.index("source .venv/bin/activate") < README.index("\nfastddpm ")


def test_python_snippets_use_public_names():
    imported = re.findall(r"^from fastddpm import (.+)$", README, re.MULTILINE)
    assert imported
    for names in imported:
        for name in names.split(", "):
            assert name in fastddpm.__all__


def test_the_demos_length_is_fixed_in_images():
    assert load_config("quickstart").train.num_images_seen == 160_000
    assert load_config("quickstart").sample.guidance_scale == 1.5, "as the README draws with it"


def test_installing_says_the_size_of_the_cuda_wheel_before_the_commands():
    assert README.index("CUDA build of several GB") < README.index("make demo ")


def test_files_to_read_first_are_there():
    page = (PROJECT / "docs" / "architecture.md").read_text()
    names = re.findall(r"`([^`]+)`", page.split("Six files to read first:")[1].split(". ")[0])
    assert len(names) == 6
    for name in names:
        assert (PROJECT / "fastddpm" / name).exists(), name


def test_every_room_stands_in_the_architecture():
    rooms = (PROJECT / "docs" / "architecture.md").read_text().split("## The rooms")[1].split("\n## ")[0]
    top = {p.name.removesuffix(".py") for p in (PROJECT / "fastddpm").iterdir() if not p.name.startswith(("_", "py."))}
    assert top - {"configs"} <= set(re.findall(r"\w+", rooms))
