import numpy as np
import pytest
from PIL import Image

from fastddpm import report
from fastddpm.report.progress import LAST_FRAME_MS, evenly


def times(count, num_images=12):
    return [(100 * (i + 1), np.full((num_images, 1, 8, 8), 10 * i, dtype=np.uint8)) for i in range(count)]


@pytest.mark.parametrize(("count", "most"), [(1, 12), (5, 12), (100, 12), (13, 12)])
def test_evenly_has_the_first_and_the_last(count, most):
    chosen = evenly(count, most)
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    assert len(chosen) == min(count, most)
    assert np.ptp(np.diff(chosen)) <= 1 if count > 2 else True


def test_sheet_has_a_row_a_time_and_at_most_ten_seeds(tmp_path):
    report.save_progress_sheet(times(20), tmp_path / "progress.png")
    picture = np.asarray(Image.open(tmp_path / "progress.png").convert("RGB"))
    grey = picture[:, -8 - 10 * 80 + 8, 0]  # through the first column of tiles
    levels = [int(v) for v in dict.fromkeys(grey.tolist()) if v < 255]
    assert len(levels) == 12
    assert (levels[0], levels[-1]) == (0, 190)
    assert levels == sorted(levels)
    assert 810 < picture.shape[1] < 950, "the names, and ten tiles of (8 + 2) * 8 pixels"


def test_gif_plays_in_order_and_holds_the_last_frame(tmp_path):
    report.save_progress_gif(times(4), tmp_path / "progress.gif")
    with Image.open(tmp_path / "progress.gif") as gif:
        assert gif.n_frames == 4
        levels, durations = [], []
        for frame in range(4):
            gif.seek(frame)
            levels.append(gif.convert("RGB").getpixel((60, 60))[0])
            durations.append(gif.info["duration"])
    assert np.abs(np.array(levels) - [0, 10, 20, 30]).max() <= 2
    assert durations[-1] == LAST_FRAME_MS > durations[0]
