"""The stand-in for torchvision.transforms, by what torchvision documents of each."""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import transforms_stand_in as transforms


def picture(width: int, height: int) -> Image.Image:
    """Every pixel says where it is: red is the column, green the row."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8))


@pytest.mark.parametrize(("size", "wanted"), [((40, 20), (16, 8)), ((20, 41), (8, 16)), ((8, 8), (8, 8))])
def test_resize_makes_the_shorter_side_the_size(size, wanted):
    assert transforms.Resize(8)(picture(*size)).size == wanted


def test_resize_averages_what_it_shrinks():
    stripes = Image.fromarray(np.tile(np.array([0, 200], np.uint8), (8, 4)))
    assert abs(np.asarray(transforms.Resize(2)(stripes)).astype(int) - 100).max() <= 30


def test_center_crop_takes_the_middle():
    left, top, _ = np.asarray(transforms.CenterCrop(4)(picture(10, 6)))[0, 0]
    assert (left, top) == (3, 1)


def test_random_crop_reaches_every_place_and_nothing_else():
    torch.manual_seed(0)
    crop = transforms.RandomCrop(4)
    corners = {tuple(np.asarray(crop(picture(6, 5)))[0, 0, :2]) for _ in range(100)}
    assert corners == {(left, top) for left in range(3) for top in range(2)}


def test_a_crop_larger_than_the_picture_is_refused():
    with pytest.raises(ValueError, match="has 6x3 pixels, wanted at least 4x4"):
        transforms.RandomCrop(4)(picture(6, 3))


def test_flip_mirrors_left_and_right_at_its_rate():
    torch.manual_seed(0)
    first = [np.asarray(transforms.RandomHorizontalFlip()(picture(4, 3)))[1, 0, :2].tolist() for _ in range(200)]
    assert {tuple(x) for x in first} == {(0, 1), (3, 1)}
    assert 70 < sum(x[0] == 3 for x in first) < 130


def test_the_scripts_chain_maps_0_and_255_to_minus_1_and_1():
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[..., 1] = 255
    chain = transforms.Compose(
        [
            transforms.Resize(6, interpolation=transforms.InterpolationMode.BILINEAR),
            transforms.RandomCrop(6),
            transforms.Lambda(lambda x: x),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )
    result = chain(Image.fromarray(pixels))
    assert result.shape == (3, 6, 6)
    assert result.dtype == torch.float32
    assert result.amin((1, 2)).tolist() == result.amax((1, 2)).tolist() == [-1, 1, -1]


def test_what_is_missing_says_so():
    with pytest.raises(NotImplementedError, match="preserve_input_precision"):
        transforms.PILToTensor()(picture(4, 4))
