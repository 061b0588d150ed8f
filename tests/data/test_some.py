"""The pictures that a user names, from anywhere, in the shape that a model makes."""

import numpy as np
import pytest
from PIL import Image

from fastddpm.data.some import read_some

SHAPE = (1, 8, 8)


@pytest.fixture
def pictures(tmp_path):
    """A folder of five PNG files, an NPY file of the same beside it, and the pixels."""
    arrays = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    (tmp_path / "more").mkdir()
    for i, pixels in enumerate(arrays):
        Image.fromarray(pixels).save(tmp_path / "more" / f"{i}.png")
    np.save(tmp_path / "all.npy", arrays)
    return tmp_path / "more", tmp_path / "all.npy", arrays


def test_files_folders_and_rows_may_stand_side_by_side(pictures):
    folder, array, pixels = pictures
    found = read_some([str(folder / "3.png"), str(folder), f"{array}#1:3", f"{folder}#4"], SHAPE)
    assert np.array_equal(found.images[:, 0], pixels[[3, 0, 1, 2, 3, 4, 1, 2, 4]])
    assert found.names[:3] == [str(folder / "3.png"), "0.png", "1.png"]
    assert len(set(found.names[6:8])) == 2
    assert found.num_fitted == 0


def test_rows_to_the_end_and_packaged_digits(pictures):
    _, array, pixels = pictures
    assert np.array_equal(read_some([f"{array}#3:"], SHAPE).images[:, 0], pixels[3:])
    assert read_some(["digits#7"], (1, 28, 28)).images.std() > 30


def test_pictures_are_made_to_fit(tmp_path):
    red = str(tmp_path / "red.png")
    Image.new("RGB", (30, 20), (255, 0, 0)).save(red)
    found = read_some([red], SHAPE)
    assert found.num_fitted == 1
    assert (found.images == 76).all(), "luma of red"
    assert read_some([red], (3, 8, 8)).images[0, :, 4, 4].tolist() == [255, 0, 0]
    with pytest.raises(ValueError, match=r"red.png is 30x20; the model makes 10x8, which is no square"):
        read_some([red], (1, 8, 10))


def test_what_cannot_be_used_is_named(pictures, tmp_path):
    folder, array, _ = pictures
    (folder / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1\.png is no image in a format that Pillow reads"):
        read_some([str(folder)], SHAPE)
    for rows, where in (("5", "at 5"), ("9:", "at 9"), ("3:3", "end before they begin")):
        with pytest.raises(ValueError, match=f"#{rows} names no image: .*{where}"):
            read_some([f"{array}#{rows}"], SHAPE)
    with pytest.raises(ValueError, match=r"nowhere: there is no|there is no .*nowhere"):
        read_some([str(tmp_path / "nowhere.png")], SHAPE)
