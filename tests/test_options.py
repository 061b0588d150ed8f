"""The options of all verbs: none comes, goes or changes by accident, and each says what it is."""

import importlib
import json
from dataclasses import is_dataclass
from pathlib import Path

import pytest

from fastddpm.cli.table_of_verbs import VERBS
from fastddpm.config.describe import options_of

SURFACE = Path(__file__).parent / "options.json"
"""where a change of an option is meant, `python -m tests.test_options` writes it anew"""


def request_of(verb):
    module, _, name = VERBS[verb].request.partition(":")
    return getattr(importlib.import_module(f"fastddpm.{module}"), name)


def surface():
    found = {}
    for verb, row in VERBS.items():
        options = options_of(request_of(verb))
        found[verb] = {"": list(row.positionals)} | {name: f"{o.text} = {o.shown}" for name, o in options.items()}
    return found


def test_options_are_those_written_down():
    kept, found = json.loads(SURFACE.read_text()), surface()
    assert list(found) == list(kept)
    for verb, options in found.items():
        assert options == kept[verb], verb


@pytest.mark.parametrize("verb", VERBS)
def test_each_option_says_what_it_is_in_a_sentence_of_its_own(verb):
    kind = request_of(verb)
    assert is_dataclass(kind)
    assert len(kind.__doc__) > 20
    for name, option in options_of(kind).items():
        assert option.meaning, f"{name} has no text under it"
        assert option.meaning[0].isupper() or option.meaning.split()[0].endswith(".safetensors"), (name, option.meaning)
        assert option.meaning.rstrip().endswith("."), (name, option.meaning)
        assert option.meaning.split()[0].lower() not in ("of", "what", "whether", "which", "how"), (
            name,
            option.meaning,
        )


def test_one_idea_has_one_name():
    """How many images, at which timesteps, where to: under other names they come again otherwise."""
    names = {name.rpartition(".")[2] for verb in ("sample", "vary", "cutmix", "augment", "detect", "evaluate", "judge")
             for name in options_of(request_of(verb))}  # fmt: skip
    others = ("num_variations", "num_blends", "num_per_image", "num_samples", "start_timestep", "output_dir")
    assert names.isdisjoint(others)


@pytest.mark.parametrize("verb", VERBS)
def test_the_function_of_a_verb_is_there(verb):
    module, _, name = VERBS[verb].function.partition(":")
    assert callable(getattr(importlib.import_module(f"fastddpm.{module}"), name))


if __name__ == "__main__":
    SURFACE.write_text(json.dumps(surface(), indent=1) + "\n")
