import numpy as np
import pytest
from PIL import Image

from fastddpm.data import decode
from fastddpm.data.decode import BadFileError, fit, read_image, to_array


def saved(tmp_path, image, name="x.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize(
    ("mode", "becomes"), [("1", "L"), ("L", "L"), ("RGB", "RGB"), ("P", "RGB"), ("RGBA", "RGB"), ("LA", "L")]
)
def test_modes_become_gray_or_colour(tmp_path, mode, becomes):
    image = Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode)
    got = read_image(saved(tmp_path, image))
    assert got.mode == becomes
    assert np.asarray(got).min() == 255


@pytest.mark.parametrize(("mode", "name"), [("CMYK", "x.jpg"), ("I;16", "x.png"), ("F", "x.tif"), ("I", "x.tif")])
def test_modes_without_a_right_conversion_are_refused(tmp_path, mode, name):
    with pytest.raises(BadFileError, match="its mode is .*; convert it to 8-bit gray or RGB first"):
        read_image(saved(tmp_path, Image.new(mode, (4, 4)), name))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_refused(tmp_path, mode):
    image = Image.new(mode, (4, 4))
    with pytest.raises(BadFileError, match="has transparent pixels .*; put it on a background first"):
        read_image(saved(tmp_path, image))


def test_palette_with_transparency_is_refused(tmp_path):
    with pytest.raises(BadFileError, match="transparent"):
        read_image(saved(tmp_path, Image.new("P", (4, 4)), transparency=0))


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert read_image(saved(tmp_path, Image.new("L", (8, 4)), "x.jpg", exif=exif)).size == (4, 8)


def test_animations_are_refused(tmp_path):
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 100, 200)]
    with pytest.raises(BadFileError, match="it has 3 frames; save the one you want"):
        read_image(saved(tmp_path, frames[0], "x.gif", save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize(("content", "reason"), [(b"", "it is empty"), (b"<html>", "no image that Pillow knows")])
def test_files_that_are_no_images_say_so(tmp_path, content, reason):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(BadFileError, match=reason):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_truncated_files_are_damaged(tmp_path, name):
    rng = np.random.default_rng(0)
    path = saved(tmp_path, Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)), name)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(BadFileError, match="it is damaged"):
        read_image(path)


def test_more_pixels_than_the_limit_are_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 15)
    with pytest.raises(BadFileError, match="4x4 is more than 15 pixels"):
        read_image(saved(tmp_path, Image.new("L", (4, 4))))


@pytest.mark.parametrize("size", [(8, 8), (16, 9), (9, 16), (5, 3)])
def test_fit_gives_the_middle_square(size):
    assert fit(Image.new("L", size), 8).size == (8, 8)


def test_fit_keeps_the_middle():
    image = Image.new("L", (24, 8))
    image.paste(255, (8, 0, 16, 8))
    assert np.asarray(fit(image, 8)).min() == 255


def test_channels_are_repeated_or_weighed():
    gray = to_array(Image.new("L", (2, 3), 7), 3)
    assert gray.shape == (3, 3, 2)
    assert (gray == 7).all()
    red = to_array(Image.new("RGB", (2, 3), (255, 0, 0)), 1)
    assert red.shape == (1, 3, 2)
    assert (red == 76).all(), "0.299 of red, by ITU-R 601"
