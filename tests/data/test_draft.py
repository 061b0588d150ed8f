"""Large JPEGs decoded at a reduced scale: as if decoded whole, wherever they lie."""

import io

import numpy as np
import pytest
from PIL import Image

from fastddpm.data.decode import decode
from fastddpm.data.fit import Fit
from fastddpm.data.meaning import Meaning
from fastddpm.data.opening import open_bytes
from tests.data.test_colour import icc


def picture(width, height, mode="RGB"):
    """Edges and waves that no side has twice."""
    rows, columns = np.mgrid[:height, :width].astype(float)
    waves = 60 * np.sin(columns / 37) + 50 * np.cos(rows / 23 + columns / 91) + 120
    waves[height // 5 : height // 3, : width // 4] = 250
    noise = np.random.default_rng(0).normal(0, 8, (height, width))
    image = np.stack([waves + noise, waves[::-1] * 0.7, 255 - waves], -1).clip(0, 255).astype(np.uint8)
    return Image.fromarray(image).convert(mode)


def both(image, fit, **options):
    """(reduced, whole): pixels, each with the size that was decoded."""
    file, found = io.BytesIO(), []
    image.save(file, "JPEG", quality=92, **options)
    for draft in (True, False):
        opened = []

        def again(opened=opened):
            opened.append(open_bytes(file.getvalue()))
            return opened[-1]

        pixels = decode(again, Fit(*fit, meaning=Meaning(draft=draft)))[0].astype(int)
        found.append((pixels, opened[0].size))
    return found


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(803, 611), (640, 480), (501, 1003)])
def test_a_reduced_picture_is_the_whole_one(size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    fits = ((3, (16, 16)), 0.6), ((1, (40, 40)), 0.6), ((3, (16, 16), "crop", 301), 1), ((3, (17, 17), "crop", 160), 1)
    wide = ((3, (20, 36)), 1), ((3, (20, 36), "pad"), 1), ((3, (20, 36), "stretch"), 1)
    for fit, most in (*fits, *wide):
        (reduced, decoded), (whole, all_of_it) = both(picture(*size), fit, exif=exif)
        assert all_of_it == size
        assert decoded[0] * decoded[1] < size[0] * size[1] / 3
        assert abs(reduced - whole).mean() < most


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_no_more_is_reduced_than_leaves_three_pixels_for_one(mode):
    image = picture(480, 480, mode)
    decoded = [both(image, (1, (side, side)))[0][1][0] for side in (20, 21, 40, 41, 80, 81)]
    assert decoded == [60, 120, 120, 240, 240, 480]
    assert both(image, (1,))[0][1] == (480, 480)
    assert both(image, (1, (20, 20), "crop", 100))[0][1] == (480, 480), "of the middle that is kept"


def test_a_curve_unlike_srgb_is_decoded_whole():
    """Means of light are no means of levels."""
    image = picture(480, 480)
    assert both(image, (3, (20, 20)), icc_profile=icc("RGB", 1.0))[0][1] == (480, 480)
    (reduced, decoded), (whole, _) = both(image, (3, (20, 20)), icc_profile=icc("RGB", 2.2))
    assert decoded == (60, 60)
    assert abs(reduced - whole).mean() < 1
