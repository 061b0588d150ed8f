"""`fastddpm judge`, and the same from Python."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastddpm import cli
from fastddpm.measures.classifier import Classifier
from fastddpm.measures.features import load_judge
from fastddpm.measures.unlabelled_judge import UnlabelledFeatures
from fastddpm.verbs.evaluate.train_judge import save_judge, train_judge
from tests.conftest import class_folders
from tests.data.test_siblings import textures
from tests.measures.test_classifier import bars


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def labelled(tmp_path):
    return class_folders(tmp_path / "labelled", *bars(96))


@pytest.fixture
def unlabelled(tmp_path):
    np.savez(tmp_path / "unlabelled.npz", images=bars(40)[0][:, 0].numpy())
    return tmp_path / "unlabelled.npz"


def judge_of(source, tmp_path, *words):
    out = tmp_path / "new" / "j.safetensors"
    cli.main(list(map(str, ["judge", source, "--out", out, "--num_steps", 3, "--num_threads", 1, *words])))
    return load_judge(out)


def test_labels_make_a_classifier(labelled, tmp_path, capsys):
    made = judge_of(labelled, tmp_path, "--num_tested", 32, "--epochs", 2)
    assert isinstance(made, Classifier)
    assert made.facts["label_names"] == ["0", "1"]
    assert (made.facts["num_images"], made.facts["num_tested"]) == (64, 32)
    assert made.facts["source"] == str(labelled)
    printed = capsys.readouterr().out
    assert "j.safetensors: 128 features of a classifier of 2 classes trained on 64 images" in printed
    assert f"{made.facts['accuracy']:.1%} of 32 other images right" in printed
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["j.safetensors"], "nothing half written is left"


def test_without_labels_it_learns_from_the_images_alone(unlabelled, tmp_path, capsys):
    made = judge_of(unlabelled, tmp_path)
    assert isinstance(made, UnlabelledFeatures)
    assert made.facts == {"num_images": 40, "num_steps": 3, "batch_size": 40, "seed": 0, "source": str(unlabelled)}
    printed = capsys.readouterr().out
    assert "j.safetensors: 64 features of a small network trained without labels on 40 images" in printed
    assert "right" not in printed


def test_labels_may_be_left_alone(labelled, tmp_path):
    made = judge_of(labelled, tmp_path, "--unlabelled", "--num_images", 50)
    assert isinstance(made, UnlabelledFeatures)
    assert made.facts["num_images"] == 50


def test_one_label_for_all_is_none(tmp_path):
    images, labels = bars(20)
    made = judge_of(class_folders(tmp_path / "one", images, labels * 0), tmp_path)
    assert isinstance(made, UnlabelledFeatures)
    assert made.facts["num_images"] == 20


def test_a_judge_from_python_knows_images_it_was_not_trained_on(tmp_path):
    images, labels = (x.numpy() for x in bars(320))
    options = {"epochs": 4, "seed": 0, "device": "cpu", "show_progress": False}
    made = train_judge(images, labels, ("level", "upright"), 64, **options)
    assert made.facts["accuracy"] > 0.9
    assert made.facts["num_images"] == 256
    by_class = made.facts["accuracy_by_class"]
    assert sum(of["num_tested"] for of in by_class.values()) == 64
    right = sum(of["num_tested"] * of["accuracy"] for of in by_class.values())
    assert right / 64 == pytest.approx(made.facts["accuracy"], abs=1e-3)
    assert all(of["interval"][0] < of["accuracy"] <= of["interval"][1] for of in by_class.values())
    assert made.accuracy(*bars(64, seed=1)) > 0.9
    shuffled = train_judge(images, np.random.default_rng(0).permutation(labels), ("a", "b"), 64, **options)
    assert 0.25 < shuffled.facts["accuracy"] < 0.75, "of labels that mean nothing"
    save_judge(made, tmp_path / "deep" / "er" / "j.safetensors")
    assert load_judge(tmp_path / "deep" / "er" / "j.safetensors").facts == made.facts


def test_shots_of_one_part_are_tested_on_or_trained_on_together(tmp_path):
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 8, (160, 3, 32, 32))
    for place, image in enumerate(np.repeat(textures(20, 32), 8, axis=0) // 2 + noise):
        picture = Image.fromarray(image.astype(np.uint8).transpose(1, 2, 0))
        picture.save(tmp_path / "images" / "ab"[place // 8 % 2] / f"{place:03d}.png")
    made = judge_of(tmp_path / "images", tmp_path, "--num_tested", 20, "--epochs", 1)
    assert made.facts["num_tested"] == 16, "two parts of eight"


def test_a_judge_from_python_without_labels_takes_all_images():
    images = bars(20)[0].numpy()
    options = {"epochs": 1, "num_steps": 2, "device": "cpu", "show_progress": False}
    made = [train_judge(images, None, None, 5, seed=seed, **options) for seed in (0, 0, 1)]
    assert made[0].facts["num_images"] == 20
    features = [judge.features(torch.from_numpy(images)) for judge in made]
    assert torch.equal(features[0], features[1])
    assert not torch.equal(features[0], features[2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["labelled"], "there are 96 images and num_tested is 2000; none is left to train on: lower num_tested"),
        (["labelled", "--out", "x.pt"], "--out is x.pt; wanted a file that ends in .safetensors"),
        (["labelled", "--num_steps", "0"], "num_steps is 0; it must be at least 1"),
        (["unlabelled.npz", "--num_images", "7"], "to learn without labels takes at least 8 images"),
        (["nowhere"], "nowhere"),
    ],
)
def test_what_does_not_fit_is_refused(labelled, unlabelled, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["judge", "--out", "x.safetensors", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))
