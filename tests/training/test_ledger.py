"""The ledger of a run is what its steps saw: on any number of processes, and after a resume."""

import json
from collections import Counter

import pytest

from fastddpm import cli
from fastddpm.config import load_config
from fastddpm.data import load_splits
from fastddpm.training.ledger import rows
from tests.training.runs import start, train_here

SPY = """
import json, os
from fastddpm.training import loss
inner = loss.Objective.training
def training(self, unet, images, labels, positions):
    found = inner(self, unet, images, labels, positions)
    with open({path!r} + os.environ.get("RANK", "0"), "a") as file:
        file.write(json.dumps([positions.tolist(), found[2].tolist()]) + "\\n")
    return found
loss.Objective.training = training
"""


def seen_by(path, world):
    """position -> timestep, of all ranks."""
    found = {}
    for rank in range(world):
        for line in path.with_name(f"{path.name}{rank}").read_text().splitlines():
            positions, timesteps = json.loads(line)
            found.update(zip(positions, timesteps, strict=True))
    return found


def ledger_of(folder):
    cli.main(["ledger", str(folder), "--out", str(folder / "ledger.jsonl")])
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("world", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_it_is_what_the_steps_saw_also_after_a_resume(tmp_path, image_folder, world):
    folder, spy = tmp_path / "run", tmp_path / "seen"
    settings = {"before": SPY.format(path=str(spy)), "processes": world, "train.micro_batch_size": "4"}
    killed = start(folder, image_folder, kill_at=13, **settings)
    assert killed.returncode != 0
    again = start(folder, image_folder, **settings)
    assert again.returncode == 0, again.stderr
    written = ledger_of(folder)
    assert [row["step"] for row in written] == list(range(1, 21))
    timesteps = [t for row in written for t in row["timesteps"]]
    assert seen_by(spy, world) == dict(enumerate(timesteps))


def test_each_epoch_has_every_image_once(tmp_path, image_folder):
    folder = train_here(tmp_path / "run", image_folder)
    places = [place for row in ledger_of(folder) for place in row["places"]]
    assert len(places) == 160
    size = 20  # of 24 images 4 are held out
    for first in range(0, 160, size):
        assert sorted(places[first : first + size]) == list(range(size))
    assert places[:size] != places[size : 2 * size]


def test_the_images_are_those_that_the_loader_gives(tmp_path, image_folder):
    folder = train_here(tmp_path / "run", image_folder)
    config = load_config(folder / "config.yaml")
    train = load_splits(config.data, seed=config.seed, show_progress=False).train
    (row,) = rows(config, train, range(3, 4))
    for place, image in zip(row["places"], row["images"], strict=True):
        assert (train.source.images[image] == train.image(place)).all()
    assert Counter(row["places"]).most_common(1)[0][1] <= 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--first", "0"], "first is 0; it must be at least 1"),
        (["--last", "21"], "got steps 1 to 21; the run has 1 to 20"),
    ],
)
def test_steps_that_the_run_has_not_are_refused(tmp_path, image_folder, capsys, words, message):
    folder = train_here(tmp_path / "run", image_folder)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["ledger", str(folder), "--out", str(tmp_path / "l.jsonl"), *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "l.jsonl").exists()
