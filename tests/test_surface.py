"""What others build on, as tests/surface/ has it written down: public names, verbs and their options, what a run leaves
behind, and which random number belongs where. Nothing of it comes, goes or changes by accident.

Where a change is meant, `python -m tests.test_surface` writes the files anew, and CHANGELOG.md says it in a line.
"""

import importlib
import json
import tempfile
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import fastddpm
from fastddpm import draws
from fastddpm.cli.table_of_verbs import VERBS
from fastddpm.config.describe import options_of
from fastddpm.kernels.philox import LAYOUT_VERSION
from fastddpm.training import loop
from fastddpm.training.metrics import read_metrics
from tests.measures.test_features import Pooled, saved
from tests.training.runs import some_images, train_here

FOLDER = Path(__file__).parent / "surface"


def request_of(verb):
    module, _, name = VERBS[verb].request.partition(":")
    return getattr(importlib.import_module(f"fastddpm.{module}"), name)


def options():
    found = {}
    for verb, row in VERBS.items():
        options = options_of(request_of(verb))
        found[verb] = {"": list(row.positionals)} | {name: f"{o.text} = {o.shown}" for name, o in options.items()}
    return found


def names():
    return fastddpm.__all__


def numbers():
    """The version of the layout; of each stream its number, and what it gives the image at position 5."""
    at = torch.tensor([5])
    return {
        "layout": LAYOUT_VERSION,
        "streams": {
            stream.name: [int(stream), draws.uniform(at, seed=3, stream=stream, draw=2).item()]
            for stream in draws.Stream
        },
    }


def a_run(folder):
    """A run that measures all that can be measured, with one step that is left out."""
    taken = loop.train_step

    def train_step(run):
        if run.state.step == 1:
            weights = next(iter(run.state.unet.parameters()))
            hook = weights.register_hook(lambda gradient: gradient * np.nan)
        norm = taken(run)
        if run.state.step == 1:
            hook.remove()
        return norm

    settings = {
        "train.num_images_seen": "24", "train.log_every": "1", "train.evaluate_every": "1",
        "train.checkpoint_every": "3", "train.ema_decay": "[0.9, 0.5]", "watch.kid_every_images": "24",
        "watch.preview_every_images": "24",
        "watch.features": saved(Pooled(), folder / "features.pt"), "watch.kid_num_samples": "10",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", train_step)
        return train_here(folder / "run", some_images(folder / "images"), **settings)


def files():
    """The keys of metrics.jsonl, and a checkpoint's files with the keys of its records."""
    with tempfile.TemporaryDirectory() as folder:
        run = a_run(Path(folder))
        (checkpoint,) = (run / "checkpoints").glob("step-*")
        records = {name: json.loads((checkpoint / f"{name}.json").read_text()) for name in ("manifest", "state")}
        return {
            "run": sorted(path.name for path in run.iterdir()),
            "metrics.jsonl": sorted({key for row in read_metrics(run / "metrics.jsonl") for key in row}),
            "checkpoint": sorted(path.name for path in checkpoint.iterdir()),
            "checkpoint format": records["manifest"]["format"],
            **{f"{name}.json": sorted(record) for name, record in records.items()},
        }


PARTS = {"options": options, "names": names, "numbers": numbers, "files": files}


def kept(part):
    return json.loads((FOLDER / f"{part}.json").read_text())


def test_options_are_those_written_down():
    found = options()
    assert list(found) == list(kept("options"))
    for verb, mine in found.items():
        assert mine == kept("options")[verb], verb


@pytest.mark.parametrize("part", [part for part in PARTS if part != "options"])
def test_the_rest_of_the_surface_is_that_written_down(part):
    assert PARTS[part]() == kept(part)


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
    for part, make in PARTS.items():
        (FOLDER / f"{part}.json").write_text(json.dumps(make(), indent=1) + "\n")
