"""What is dropped, and what is said of images: with classifiers and runs that are really trained, on 8x8 pixels."""

import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from fastddpm.data.named_pictures import LabelledImages, named_images
from fastddpm.measures.classifier import train_classifier
from fastddpm.measures.nearest import TrainingImages
from fastddpm.measures.unlabelled_judge import train_unlabelled
from fastddpm.verbs.augment.filters import LabelFilter, classes_of
from fastddpm.verbs.evaluate.train_judge import save_judge
from tests.conftest import class_folders
from tests.training.runs import train_here
from tests.verbs.augment.conftest import labelled_images, pixels, record_of, rows_in


@pytest.fixture(scope="module")
def classifier():
    """Tells the three kinds of `labelled_images`."""
    images, labels = labelled_images((60, 60, 60), seed=1)
    made = train_classifier(images, labels, 3, epochs=30, batch_size=30, show_progress=False)
    made.facts["label_names"] = ["0", "1", "2"]
    fresh = labelled_images((50, 50, 50), seed=2)
    assert made.accuracy(*fresh) == 1
    return made


@pytest.fixture
def judge(classifier, tmp_path):
    save_judge(classifier, tmp_path / "judge.safetensors")
    return tmp_path / "judge.safetensors"


@pytest.fixture
def run(image_folder, tmp_path):
    """A class-conditional run on 20 of 24 images in two class folders."""
    return train_here(
        tmp_path / "run", image_folder, **{"model.class_conditional": "true", "train.num_images_seen": "16"}
    )


def test_what_keeps_its_label_is_kept_and_what_loses_it_is_dropped(augment, plain_model, judge, capsys):
    """At timestep 1 an image is still itself; at 20 an untrained model makes noise of any."""
    kept = augment("--judge", judge, "--start_timesteps", 1, model=plain_model, out="kept")
    assert record_of(kept)["counts"] == {"drawn": 11, "kept": 11, "label_lost": 0, "copy": 0}
    assert all(row["label_probability"] > 0.5 for row in rows_in(kept))
    capsys.readouterr()
    some = augment("--judge", judge, "--start_timesteps", 1, 20, "--num_images", 2, model=plain_model, out="some")
    record = record_of(some)
    assert record["counts"]["drawn"] == 44
    assert record["counts"]["label_lost"] == 44 - record["counts"]["kept"] >= 5
    by_class = record["counts_by_class"].values()
    assert {key: sum(row[key] for row in by_class) for key in record["counts"]} == record["counts"]
    assert Counter(row["label_name"] for row in rows_in(some)) == {
        name: row["kept"] for name, row in record["counts_by_class"].items() if row["kept"]
    }
    assert len(list(some.rglob("*.png"))) == record["counts"]["kept"]
    assert {row["start_timestep"] for row in rows_in(some)} >= {1}
    printed = capsys.readouterr().out
    assert "drawn" in printed
    assert "label lost" in printed
    red = np.asarray(Image.open(some.with_suffix(".png"))).reshape(-1, 3)
    assert (red == (220, 40, 40)).all(1).any(), "dropped ones are framed on the sheet"
    assert not (np.asarray(Image.open(kept.with_suffix(".png"))).reshape(-1, 3) == (220, 40, 40)).all(1).any()


def test_a_blend_has_the_label_of_its_larger_part_among_the_two(classifier, judge, data):
    found = LabelFilter.of(judge, LabelledImages(**vars(named_images(str(data)))), (1, 8, 8), torch.device("cpu"))
    images, labels = labelled_images((1, 1, 1), seed=3)
    likely, keeps = found.probabilities(images.numpy(), labels.tolist(), labels.tolist())
    assert keeps.all()
    assert (likely > 0.5).all()
    _, keeps = found.probabilities(images.numpy(), [0, 0, 0], [0, 0, 0])
    assert keeps.tolist() == [True, False, False]
    dark_or_light = classifier.probabilities(images)[:, [0, 2]].numpy()
    _, keeps = found.probabilities(images.numpy(), [0, 0, 0], [2, 2, 2])
    assert keeps.tolist() == (dark_or_light[:, 0] >= dark_or_light[:, 1]).tolist()
    assert keeps.tolist()[::2] == [True, False], "the middle one is neither, and may be either"


def test_when_nothing_is_left_it_says_so(augment, refused, plain_model, data, judge, tmp_path):
    shutil.move(data / "0", data / "x")
    shutil.rmtree(data / "1")
    shutil.move(data / "2", data / "1")
    shutil.move(data / "x", data / "2")  # dark ones are called 2, light ones 1
    line = refused("--judge", judge, "--start_timesteps", 1, model=plain_model)
    assert line.startswith(f"the filters leave none of 8 images; see {tmp_path / 'out.png'}, remove")
    assert record_of(tmp_path / "out")["counts"] == {"drawn": 8, "kept": 0, "label_lost": 8, "copy": 0}
    assert not (tmp_path / "out").exists()


def test_a_class_that_was_to_be_balanced_and_has_nothing_left_ends_with_1(
    augment, plain_model, data, judge, tmp_path, capsys
):
    for path in (data / "0").iterdir():
        shutil.copy(path, data / "1" / f"dark-{path.name}")
    shutil.rmtree(data / "0")
    shutil.move(data / "2", data / "0")  # light ones are called 0: none keeps that label
    with pytest.raises(SystemExit) as end:
        augment("--judge", judge, "--start_timesteps", 1, "--balance", model=plain_model)
    assert end.value.code == 1
    assert "not balanced: the filters left none of 0; see" in capsys.readouterr().out
    counts = record_of(tmp_path / "out")["counts_by_class"]
    assert (counts["0"]["kept"], counts["1"]["kept"] > 0) == (0, True)
    assert rows_in(tmp_path / "out"), "what is there is whole"


def test_judges_that_do_not_fit_are_refused(refused, classifier, judge, data, tmp_path, plain_model):
    images = torch.randint(0, 256, (60, 1, 16, 16), dtype=torch.uint8)
    save_judge(train_unlabelled(images, num_steps=1, seed=0, show_progress=False), tmp_path / "u.safetensors")
    line = refused("--judge", tmp_path / "u.safetensors")
    assert "trained without labels on 60 images, which knows no labels; wanted a classifier" in line
    wide = torch.zeros(8, 1, 16, 16, dtype=torch.uint8)
    other = train_classifier(wide, torch.zeros(8, dtype=torch.int64), 3, epochs=1, show_progress=False)
    save_judge(other, tmp_path / "w.safetensors")
    line = refused("--judge", tmp_path / "w.safetensors")
    assert "judges images of (1, 16, 16) (channels, height, width), the model makes (1, 8, 8); make a judge" in line
    shutil.move(data / "2", data / "cat")
    line = refused("--judge", judge, model=plain_model)
    assert f"{judge} does not know cat, which the data have; it knows 0, 1, 2: leave" in line


def test_copies_are_dropped_and_others_are_kept(augment, run, tmp_path, capsys):
    data = f"{run}:train"
    kept = augment("--start_timesteps", 20, model=run, data=data, out="all")
    rows = rows_in(kept)
    assert len(rows) == 20
    assert {row["sources"][0] for row in rows} == {f"{run}:train#{i}" for i in range(20)}
    assert all(row["nearest_distance"] > 5 and 0 < row["nearest_closeness"] <= 1 for row in rows)
    free = augment("--start_timesteps", 20, "--drop_copies", model=run, data=data, out="free")
    rule = record_of(free)["copies"]
    assert (rule["num_compared"], rule["reals"]) == (20, "held_out")
    close = [row for row in rows if row["nearest_closeness"] < rule["threshold"]]
    assert record_of(free)["counts"]["copy"] == len(close) < 20
    capsys.readouterr()
    some = augment("--start_timesteps", 1, 20, "--drop_copies", model=run, data=data, out="some")
    counts = record_of(some)["counts"]
    assert counts["copy"] >= 20, "at timestep 1 an image is a near-copy of its source"
    assert counts["kept"] == 20 - len(close)
    assert {row["start_timestep"] for row in rows_in(some)} == {20}
    assert "copy" in capsys.readouterr().out


def test_nearest_distances_are_those_to_the_training_images(augment, run, image_folder):
    rows = rows_in(out := augment("--start_timesteps", 3, model=run, data=f"{run}:train"))
    everything = [np.asarray(Image.open(path)).astype(float) for path in image_folder.rglob("*.png")]
    for row in rows:
        image = pixels(out, row)
        away = min(np.sqrt(np.square(image - np.stack([x, x[:, ::-1]])).mean((1, 2))).min() for x in everything)
        assert row["nearest_distance"] >= round(away, 3) - 0.002, "held-out ones are left out; mirrored ones count"
        assert row["nearest_distance"] <= row["source_distances"][0] + 0.002


def test_copies_of_the_data_are_copies_too(augment, refused, plain_model, data, run, capsys):
    """Whether training images are known or not, and whether the data are held out or not."""
    some = augment("--start_timesteps", 1, 20, "--drop_copies", model=plain_model)
    assert "drop_copies looks for copies of the images of the data only" in capsys.readouterr().out
    assert record_of(some)["copies"]["num_compared"] == 11
    assert Counter(row["start_timestep"] for row in rows_in(some))[20] >= 9
    assert Counter(row["start_timestep"] for row in rows_in(some))[1] <= 2
    held_out = augment("--start_timesteps", 1, 20, "--drop_copies", model=run, data=f"{run}:held_out", out="held_out")
    assert record_of(held_out)["copies"]["num_compared"] == 24
    assert record_of(held_out)["copies"]["reals"] == "training"
    assert {row["start_timestep"] for row in rows_in(held_out)} == {20}
    line = refused("--drop_copies", model=plain_model, data=f"{data}#0:2", out="two")
    assert line == "drop_copies cannot tell copies with 2 different images to compare with; leave --drop_copies out"


def test_training_images_that_are_gone_are_no_error(augment, run, data, image_folder, tmp_path, capsys):
    shutil.rmtree(image_folder)
    shutil.rmtree(image_folder.parent / "cache")
    for old, new in (("0", "dark"), ("1", "light")):
        shutil.move(data / old, data / new)
    shutil.rmtree(data / "2")
    rows = rows_in(augment(model=run))
    assert {row["nearest_distance"] for row in rows} == {None}
    printed = capsys.readouterr().out
    assert f"no distances to training images: the training images of {run} cannot be read: " in printed
    assert record_of(tmp_path / "out")["training"]["unknown"].startswith(f"the training images of {run} cannot be")


def test_labels_go_by_their_names(augment, refused, run, tmp_path):
    images, labels = labelled_images((3, 3))
    folder = class_folders(tmp_path / "renamed", images, labels)
    shutil.move(folder / "0", folder / "light")
    shutil.move(folder / "1", folder / "aaa")
    line = refused(model=run, data=folder)
    assert f"the model {run} does not know aaa, which the data have; it knows dark, light" in line
    names, found = ("light", "none", "dark"), np.array([0, 2, 2])
    assert classes_of(names, found, ("dark", "light"), 2, "x").tolist() == [1, -1, 0]
    assert classes_of(names, np.array([0, 1]), None, 2, "x").tolist() == [0, 1, -1]
    with pytest.raises(ValueError, match="x does not know dark, which the data have; it knows 0 to 1: leave those"):
        classes_of(names, found, None, 2, "x")


def test_runs_without_labels_have_no_labelled_images(refused, image_folder, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in image_folder.rglob("*.png"):
        shutil.copy(path, flat / f"{path.parent.name}{path.name}")
    run = train_here(tmp_path / "unlabelled", flat, **{"train.num_images_seen": "8"})
    assert f"got split with {run}:train, whose images are read as {run} read them; leave it out" in refused(
        "--split", "train", model=run, data=f"{run}:train"
    )
    assert f"{run}:train has no labels; wanted class folders, " in refused(model=run, data=f"{run}:train")


def test_too_few_training_images_have_no_threshold():
    images = labelled_images((1, 1))[0]
    compared = TrainingImages(lambda ids: images[ids], torch.arange(2), None)
    assert compared.threshold is None
