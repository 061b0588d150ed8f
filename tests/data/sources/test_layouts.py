"""What folders mean: classes, splits, defects and masks, and what is refused."""

import re

import numpy as np
import pytest
from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.data import load_splits, summary, summary_lines
from fastddpm.data.sources import WHOLE, find_source
from fastddpm.data.sources.layouts import arranged
from fastddpm.data.sources.masks import split_of

MVTEC = "train/good/0.png train/good/1.png test/good/0.png test/cut/0.png test/crack/0.png"
MASKS = "ground_truth/cut/0_mask.png ground_truth/crack/0_mask.png"


def read(paths, layout=None):
    """{path: (split, class, masks)} of what is a picture, and the line that is said."""
    contents = arranged(sorted(paths.split()), lambda index: None, layout)
    names = contents.label_names or ()
    found = {
        picture.name: (
            split,
            None if picture.label is None else names[picture.label],
            [mask.name for mask in picture.masks],
        )
        for split, pictures in contents.splits.items()
        for picture in pictures.start_at(0)
    }
    return found, contents.layout


def refusal(paths, layout=None):
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is what the caller looks at
        read(paths, layout)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[
            (name, "train")
            for name in [
                "train",
                "Train",
                "TRAINING",
                "train_images",
                "images_train",
                "trainset",
                "train-set",
                "train2017",
            ]
        ],
        *[(name, "train") for name in ("Training Set", "TrainSet", "training_data", "train-set")],
        *[(name, "valid") for name in ["val", "valid", "Validation", "dev", "development", "eval"]],
        *[(name, "test") for name in ["test", "Testing", "Test_Imgs", "test-set"]],
        *[(name, None) for name in ["trainer", "contest", "device", "tests", "train_2", "retrain", "cat"]],
    ],
)
def test_names_of_splits(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize("around", ["", "bottle/", "a/b/"])
@pytest.mark.parametrize(("good", "bad"), [("good", "cut"), ("ok", "ko")])
def test_sets_of_the_mvtec_kind_are_trained_on_their_good_pictures(around, good, bad):
    paths = " ".join(around + path for path in f"{MVTEC} {MASKS}".replace("good", good).replace("cut", bad).split())
    found, said = read(paths)
    assert said == f"MVTec layout: 2 {good} to train on; 2 kinds of defects and their masks left for detect"
    assert found == {
        f"{around}train/{good}/0.png": ("train", good, []),
        f"{around}train/{good}/1.png": ("train", good, []),
        f"{around}test/{good}/0.png": ("test", good, []),
        f"{around}test/{bad}/0.png": ("test", bad, [f"{around}ground_truth/{bad}/0_mask.png"]),
        f"{around}test/crack/0.png": ("test", "crack", [f"{around}ground_truth/crack/0_mask.png"]),
    }


def test_good_pictures_may_lie_in_train_itself_and_masks_may_be_several():
    found, _ = read(
        "train/0.png test/good/0.png test/logic/0.png ground_truth/logic/0/000.png ground_truth/logic/0/001.png"
    )
    assert found["train/0.png"] == ("train", "good", [])
    assert found["test/logic/0.png"][2] == ["ground_truth/logic/0/000.png", "ground_truth/logic/0/001.png"]


@pytest.mark.parametrize("form", ["{}", "candle/Data/Images/{}"])
def test_normal_and_abnormal_folders_with_masks_are_a_set_of_defects(form):
    masks = "mask/0.png" if form == "{}" else "candle/Data/Masks/Anomaly/0.png"
    bad = "abnormal" if form == "{}" else "Anomaly"
    found, said = read(
        " ".join([*(form.format(f"Normal/{i}.png") for i in range(3)), form.format(f"{bad}/0.png"), masks])
    )
    title = "normal and abnormal" if form == "{}" else "VisA"
    assert said == f"{title} layout: 3 Normal to train on; 1 kind of defects and their masks left for detect"
    assert found[form.format(f"{bad}/0.png")] == ("test", bad, [masks])
    assert {of[:2] for name, of in found.items() if "Normal" in name} == {("train", "Normal")}


def test_what_has_masks_for_all_or_none_is_classes_unless_the_setting_says():
    busi = "benign/0.png benign/0_mask.png benign/0_mask_1.png normal/0.png normal/0_mask.png"
    found, said = read(busi)
    assert said == "2 class folders; to train on normal ones alone: --data.layout defects; 3 masks left out"
    assert found["benign/0.png"] == (WHOLE, "benign", ["benign/0_mask.png", "benign/0_mask_1.png"])
    found, said = read("normal/0.png abnormal/0.png")
    assert {of[0] for of in found.values()} == {WHOLE}
    found, said = read("normal/0.png normal_test/0.png scratch/0.png", "defects")
    assert {name: of[0] for name, of in found.items()} == {
        "normal/0.png": "train", "normal_test/0.png": "test", "scratch/0.png": "test",
    }  # fmt: skip
    assert "wants a folder good, ok or normal" in refusal("cat/0.png dog/0.png", "defects")


def test_masks_beside_pictures_are_no_pictures():
    for paths in ("images/0.png images/1.png masks/0.png masks/1.png", "0.png 0_mask.png 1.png 1_GT.png"):
        found, said = read(paths)
        assert [(split, label, len(masks)) for split, label, masks in found.values()] == [(WHOLE, None, 1)] * 2
        assert said == "2 masks left out"
    found, _ = read("train/images/0.png train/masks/0.png val/images/0.png val/masks/0.png")
    assert found == {
        "train/images/0.png": ("train", None, ["train/masks/0.png"]),
        "val/images/0.png": ("val", None, ["val/masks/0.png"]),
    }
    found, _ = read("train/0.jpg train_masks/0_mask.gif test/5.jpg")
    assert found["train/0.jpg"][2] == ["train_masks/0_mask.gif"]


def test_splits_under_other_names_and_below_classes():
    for paths in (
        "Training/{}/0.png Testing/{}/1.png",
        "{}/train/0.png {}/test/1.png",
        "in/train_set/{}/0.png in/test_set/{}/1.png",
    ):
        found, said = read(f"{paths.replace('{}', 'cat')} {paths.replace('{}', 'dog')}")
        assert said == "splits: test 2, train 2; 2 class folders"
        assert sorted(of[:2] for of in found.values()) == [
            ("test", "cat"),
            ("test", "dog"),
            ("train", "cat"),
            ("train", "dog"),
        ]
    found, _ = read("train/0.png dev/0.png eval/0.png validation/0.png")
    assert {of[0] for of in found.values()} == {"train", "dev", "eval", "validation"}


def test_names_of_classes_that_sound_like_masks_or_splits_are_classes():
    for paths in (
        "mask/0.png no_mask/0.png",
        "with_mask/0.png without_mask/0.png",
        "train/0.png bus/0.png",
        "test/0.png cat/0.png",
    ):
        found, said = read(paths)
        assert said == "2 class folders"
        assert None not in {of[1] for of in found.values()}


def test_two_readings_are_refused_and_the_setting_decides():
    mixed = "train/cat/0.png train/dog/0.png test/cat/0.png samples/0.png"
    said = refusal(mixed)
    assert said.startswith("the folders test and train read as splits or as classes, and lie beside samples: ")
    assert "--data.layout splits, classes or flat says which" in said
    assert {of[0] for of in read(mixed, "splits")[0].values()} == {"train", "test", "samples"}
    assert {of[1] for of in read(mixed, "classes")[0].values()} == {"train", "test", "samples"}
    assert {of[:2] for of in read(mixed, "flat")[0].values()} == {(WHOLE, None)}
    assert "and lie beside loose.png: " in refusal("train/0.png test/0.png loose.png")
    assert "none of them is to train on" in refusal("val/0.png test/0.png")
    assert "train and training both read as the split to train on" in refusal("train/0.png training/0.png")
    said = refusal(
        " ".join(f"{category}/{path}" for category in ("bottle", "cable") for path in f"{MVTEC} {MASKS}".split())
    )
    assert said.startswith("each of 2 folders (bottle, cable) is a set of its own, ")
    masks = "mask/7.png hat/10.png scarf/20.png"
    assert refusal(masks).startswith("mask reads as masks, of which 1 of 1 are of no picture here, or as a class: ")
    assert {of[1] for of in read(masks, "classes")[0].values()} == {"mask", "hat", "scarf"}


def test_masks_of_several_pictures_are_told():
    _, said = read("images/a/0.png images/b/0.png images/a/1.png masks/0.png masks/1.png")
    assert said == "2 class folders; 2 masks left out; 1 mask of no picture, or of several"


# ------------------------------------------------------------------------------------------ of a run


def save(root, paths):
    for value, path in enumerate(paths.split()):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((3, 3), value, dtype=np.uint8)).save(root / path)
    return root


def splits_of(root, **options):
    return load_splits(DataConfig(source=str(root), cache_dir=str(root.parent / "cache"), **options), seed=0)


def test_a_run_on_a_set_of_defects_sees_good_pictures_only(tmp_path, caplog):
    splits = splits_of(save(tmp_path / "screw", f"{MVTEC} {MASKS}"))
    found = summary(splits)
    assert (found["num_train"], found["labels"], found["label_names"]) == (2, {"good": 2}, ["good"])
    assert "  MVTec layout: 2 good to train on; 2 kinds of defects and their masks left for detect" in summary_lines(
        found
    )
    assert not caplog.records
    assert splits_of(tmp_path / "screw", layout="flat").train.source.label_names is None


def test_a_layout_is_for_folders(tmp_path):
    with pytest.raises(ValueError, match=re.escape("data.layout is for folders and archives of pictures")):
        find_source(DataConfig(source="digits", layout="classes"))


def test_folders_that_are_numbers_sort_as_numbers(tmp_path):
    splits = splits_of(save(tmp_path / "in", " ".join(f"{i}/0.png" for i in (10, 9, 2, 1, 12))))
    source = splits.train.source
    assert source.label_names == ("1", "2", "9", "10", "12")
    value_of = {int(image.max()): label for image, label in zip(source.images, source.labels, strict=True)}
    assert value_of == {3: 0, 2: 1, 1: 2, 0: 3, 4: 4}
