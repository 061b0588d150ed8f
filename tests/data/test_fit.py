"""Pictures of any shape to one size, and back: where a pixel of the network lies in its picture."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageOps

from fastddpm.data.fit import Box, Fit

SIZES = ((7, 9), (16, 16), (40, 24), (30, 90), (101, 3), (1, 50), (49, 33))
"""(width, height): odd ones, both ways round, and strips of which a side would round to nothing"""
TARGETS = ((8, 8), (6, 10), (12, 5))
"""(H, W)"""
WAYS = ("crop", "pad", "stretch")


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("size", "target"), list(itertools.product(SIZES, TARGETS)))
def test_a_cut_picture_is_that_of_pillow_to_the_bit(size, target):
    image = noise(*size)
    wanted = ImageOps.fit(image, target[::-1], method=Image.Resampling.BICUBIC)
    assert np.array_equal(Fit(3, target)(image), wanted)


@pytest.mark.parametrize(("size", "target"), list(itertools.product(SIZES, TARGETS)))
def test_a_padded_picture_is_whole_and_its_bars_are_of_the_background(size, target):
    fit = Fit(3, target, "pad", background=(250, 10, 90))
    made, top, left, height, width = np.asarray(fit(Image.new("RGB", size, (9, 9, 9)))), *fit.place(size).shown
    inside = made[top : top + height, left : left + width]
    assert made.shape == (*target, 3)
    assert (inside == 9).all()
    assert height == target[0] or width == target[1], "as large as it fits"
    assert (made == (250, 10, 90)).all(-1).sum() == target[0] * target[1] - height * width
    assert fit.place(size).lost == 0


def test_gray_bars_are_the_luma_of_the_background_and_black_without_one():
    tall = Image.new("L", (4, 8), 200)
    red = Fit(1, (8, 8), "pad", background=(255, 0, 0))(tall)
    assert np.asarray(red)[0].tolist() == [76, 76, 200, 200, 200, 200, 76, 76]
    assert np.asarray(Fit(1, (8, 8), "pad")(tall))[0].tolist() == [0, 0, 200, 200, 200, 200, 0, 0]


def test_a_stretched_picture_keeps_its_four_corners():
    image = np.zeros((40, 20), np.uint8)
    image[:20, :10] = 255
    assert np.array_equal(
        np.asarray(Fit(1, (4, 6), "stretch")(Image.fromarray(image)))[[0, 0, 3], [0, 5, 0]], [255, 0, 0]
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cuts", [{}, {"center_crop": 20}, {"random_crop": 8}, {"center_crop": 21, "random_crop": 13}])
def test_a_mark_in_a_picture_is_found_again_from_what_the_network_sees(way, cuts):
    fit = Fit(1, (24, 18), way, **cuts)
    for width, height in ((60, 40), (33, 90), (45, 45)):
        marked = np.zeros((height, width), np.uint8)
        middle = height // 2 + 1, width // 2 - 4
        marked[middle[0] : middle[0] + 5, middle[1] : middle[1] + 5] = 255
        seen, place = np.asarray(fit(Image.fromarray(marked))), fit.place((width, height))
        rows, columns = np.nonzero(seen > 127)
        box = place.box_in_picture(Box(rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1))
        within = max(place.scale) + 1
        assert abs(box.top - middle[0]) <= within
        assert abs(box.left - middle[1]) <= within
        assert abs(box.top + box.height - middle[0] - 5) <= within
        map_ = place.map_in_picture(seen.astype(float))
        assert map_.shape == marked.shape
        found = np.argwhere(map_ > 127).mean(0)
        assert np.abs(found - middle - 2).max() <= within / 2 + 0.5
        assert abs(np.isnan(map_).mean() - place.lost) < 0.06, "what is cut off is not known"


def test_a_map_of_a_picture_that_is_as_large_is_the_same_map():
    values = np.random.default_rng(1).normal(size=(6, 9)).astype(np.float32)
    assert np.array_equal(Fit(1).place((9, 6)).map_in_picture(values), values)


def test_what_lies_in_the_bars_lies_nowhere_in_the_picture():
    place = Fit(1, (8, 8), "pad").place((10, 40))
    assert place.box_in_picture(Box(0, 0, 8, 3)) is None
    assert place.box_in_picture(Box(0, 0, 8, 4)) == (0, 0, 40, 5)
    assert place.box_in_picture(Box(0, 0, 8, 8)) == (0, 0, 40, 10)
