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


def test_loss_plot_is_drawn_from_metrics(tmp_path):
    rows = [
        {"step": 1, "images_seen": 10, "loss": 0.5, "loss_by_quartile": [0.4, None, 0.5, 0.6]},
        {"step": 2, "images_seen": 20, "loss": 0.3, "loss_by_quartile": [0.2, 0.3, 0.4, 0.5]},
        {"step": 2, "images_seen": 20, "held_out_loss": 0.35},
    ]
    report.save_loss_plot(rows, tmp_path / "loss.png")
    picture = read(tmp_path / "loss.png")
    assert picture.shape[1] > picture.shape[0] > 300
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert [p.name for p in tmp_path.iterdir()] == ["loss.png"]
