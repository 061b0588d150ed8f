import numpy as np
import pytest
from PIL import Image

from fastddpm import report


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_has_every_image_at_its_place(tmp_path, channels):
    images = np.stack([np.full((channels, 4, 4), 20 * i, dtype=np.uint8) for i in range(6)])
    report.save_grid(images, tmp_path / "grid.png", columns=3, scale=1)
    grid = read(tmp_path / "grid.png")
    assert grid.shape == (2 * 6 + 2, 3 * 6 + 2, 3)
    for i in range(6):
        top, left = 2 + i // 3 * 6, 2 + i % 3 * 6
        assert (grid[top : top + 4, left : left + 4] == 20 * i).all()


def test_grid_is_as_square_as_it_gets_and_large_enough_to_see(tmp_path):
    report.save_grid(np.zeros((7, 1, 8, 8), dtype=np.uint8), tmp_path / "grid.png")
    height, width, _ = read(tmp_path / "grid.png").shape
    assert height == width
    assert 400 < width < 900


def test_rows_are_labelled_and_may_differ_in_length(tmp_path):
    rows = [("input", np.zeros((3, 1, 8, 8), dtype=np.uint8)), ("from t=300", np.zeros((2, 1, 8, 8), dtype=np.uint8))]
    report.save_labelled_rows(rows, tmp_path / "rows.png", scale=2)
    picture = read(tmp_path / "rows.png")
    black = (picture == 0).all(-1)
    assert black.sum() == 5 * 16 * 16
    assert (picture[:, :100] < 200).any(), "the names are written on the left"


def test_names_are_written_in_letters_of_any_european_language(tmp_path):
    def written(name):
        report.save_labelled_rows([(name, np.full((1, 1, 8, 8), 255, dtype=np.uint8))], tmp_path / "row.png")
        return read(tmp_path / "row.png")

    letters = [written(letter) for letter in "äößłжΩ"]
    assert len({picture.tobytes() for picture in letters}) == 6, "not one box for all"


def test_few_short_rows_stand_beside_each_other(tmp_path):
    """A sheet of twenty sources with two images each is no column with an empty page beside it."""
    rows = [(f"class {i}", np.zeros((3, 1, 8, 8), dtype=np.uint8)) for i in range(20)]
    report.save_labelled_rows(rows, tmp_path / "rows.png", scale=7, title="one of " * 40, width=1000)
    picture = read(tmp_path / "rows.png")
    assert 700 < picture.shape[1] <= 1000
    assert (picture == 0).all(-1).sum() == 20 * 3 * 56 * 56
    assert (picture == 0).all(-1).mean() > 0.35, "it was a tenth, most of it white"


def test_columns_have_heads_and_rows_their_names(tmp_path):
    row = np.full((3, 1, 8, 8), 255, dtype=np.uint8)
    for name, heads in (("t = 300", ()), ("", ("image", "noised", "variations"))):
        report.save_labelled_rows([(name, row)], tmp_path / "rows.png", scale=9, heads=heads)
        picture = read(tmp_path / "rows.png")
        inked = np.flatnonzero((picture < 200).any((0, 2)))
        first = picture.shape[1] - 8 - 3 * 90
        assert (inked < first).all() if name else (inked[0] >= first and inked[-1] > first + 180)


def test_pairs_stand_one_above_the_other_in_order(tmp_path):
    pairs = [
        (np.full((1, 8, 8), 10 * i, dtype=np.uint8), np.full((1, 8, 8), 10 * i + 5, dtype=np.uint8), f"pair {i}")
        for i in range(3)
    ]
    report.save_pairs(pairs, tmp_path / "pairs.png")
    picture = read(tmp_path / "pairs.png")
    for i in range(3):
        column = picture[:, 8 + i * (90 + 8) + 20]
        assert (column[8 + 20] == 10 * i).all()
        assert (column[8 + 90 + 20] == 10 * i + 5).all()
