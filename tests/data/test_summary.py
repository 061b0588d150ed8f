"""What was read in, told to people."""

import json

import numpy as np
from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.data import contact_sheet, load_splits, summary, summary_lines
from fastddpm.training.folder import write_data_report


def splits_of(tmp_path, **images):
    for name, pixels in images.items():
        path = tmp_path / "in" / name.replace("_", "/", 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path.with_suffix(".png"))
    config = DataConfig(source=str(tmp_path / "in"), cache_dir=str(tmp_path / "cache"))
    return load_splits(config, seed=0, show_progress=False)


def flat(value, side=4):
    return np.full((side, side), value, dtype=np.uint8)


def test_splits_that_are_not_read_are_told(tmp_path):
    splits = splits_of(tmp_path, train_1=flat(1), test_2=flat(2), val_3=flat(3))
    assert "  splits not read: test, val" in summary_lines(summary(splits))


def test_large_images_are_made_smaller_for_the_sheet(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 390), dtype=np.uint8)
    splits = splits_of(tmp_path, one=pixels)
    ((_, images),) = contact_sheet(splits.train)
    assert images.shape == (1, 1, 75, 97)
    assert images[0, 0, 0, 0] == np.float32(pixels[:4, :4].mean()).round()
    write_data_report(splits, tmp_path)
    assert max(Image.open(tmp_path / "data.png").size) < 300


def test_the_report_of_any_names_can_be_read(tmp_path):
    (tmp_path / "in\udcff").mkdir()
    Image.fromarray(flat(1)).save(tmp_path / "in\udcff" / "1.png")
    config = DataConfig(source=str(tmp_path / "in\udcff"), cache_dir=str(tmp_path / "cache"))
    write_data_report(load_splits(config, seed=0, show_progress=False), tmp_path)
    assert json.loads((tmp_path / "data.json").read_text())["source"] == str(tmp_path / "in\udcff")


def test_gray_pictures_kept_as_colour_are_told_and_one_colour_picture_ends_that(tmp_path):
    def gray(value):
        return np.dstack([flat(value)] * 3)

    splits = splits_of(tmp_path / "gray", one=gray(1), two=gray(2))
    assert splits.train.image_shape == (3, 4, 4)
    assert (
        "every image is gray, and is kept with three channels: --data.channels 1" in summary_lines(summary(splits))[-1]
    )
    for name, other in (("colour", np.dstack([flat(1), flat(2), flat(3)])), ("mixed", flat(9))):
        found = summary(splits_of(tmp_path / name, one=gray(1), two=other))
        assert found["is_gray_in_colour"] == (name == "mixed")
    assert not summary(splits_of(tmp_path / "plain", one=flat(1)))["is_gray_in_colour"]


def test_pictures_that_lose_more_than_a_quarter_are_counted_and_five_are_shown_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))
    draw, folder = np.random.default_rng(0), tmp_path / "in"
    folder.mkdir()
    for i, size in enumerate([(16, 16)] * 3 + [(16, 20)] * 2 + [(40, 10)] * 7):  # (height, width)
        Image.fromarray(draw.integers(100, 200, size, dtype=np.uint8)).save(folder / f"{i:02d}.png")

    def report(**options):
        splits = load_splits(DataConfig(source=str(folder), **options), seed=0, show_progress=False)
        return summary(splits), contact_sheet(splits.train)

    found, rows = report(image_size=8)
    assert (found["num_cut_over_quarter"], found["fit"], found["padding"]) == (7, "crop", None)
    assert "  7 images lose more than a quarter to the cut, see data.png; --data.fit pad" in "\n".join(
        summary_lines(found)
    )
    name, shown = rows[-1]
    assert name == "7 lose over a\nquarter (dark)"
    assert shown.shape == (5, 1, 8, 8)
    assert (shown[:, 0, 3:5, 3:5] >= 90).all(), "seen"
    assert ((shown[:, 0, 0, 3:5] > 20) & (shown[:, 0, 0, 3:5] < 70)).all(), "cut off, and dark"
    assert not shown[:, 0, :, 0].any(), "beside the picture"
    found, rows = report(image_size=8, fit="pad", background=(9, 9, 9))
    assert (found["num_cut_over_quarter"], found["fit"], found["padding"]) == (0, "pad", [9, 9, 9])
    assert all("quarter" not in name for name, _ in rows)
    assert report(image_size=8, center_crop=10)[0]["num_cut_over_quarter"] == 12, "a cut of the middle is one too"
    assert report(image_size=(32, 8))[0]["num_cut_over_quarter"] == 5
