"""Pixels to [-1, 1] and back."""

import pytest
import torch

from fastddpm.data import to_uint8, to_unit_range


def test_all_values_come_back_and_the_range_is_whole():
    pixels = torch.arange(256, dtype=torch.uint8)
    values = to_unit_range(pixels)
    assert values.dtype == torch.float32
    assert (values[0], values[255]) == (-1, 1)
    assert torch.equal(to_uint8(values), pixels)


def test_values_outside_are_clamped():
    assert to_uint8(torch.tensor([-9.0, -1.001, 1.001, 9.0])).tolist() == [0, 0, 255, 255]


def test_the_nearest_pixel_is_taken():
    thirds = torch.arange(0, 255, dtype=torch.float64) + torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)[:, None]
    got = to_uint8(thirds / 127.5 - 1).double()
    assert torch.equal(got, thirds.round())


def test_halves_go_to_the_even_pixel():
    assert to_uint8(torch.tensor([0.0])).item() == 128  # 127.5


def test_half_precision_is_scaled_in_single():
    values = torch.linspace(-1, 1, 999).half()
    assert torch.equal(to_uint8(values), to_uint8(values.float()))


def test_the_argument_is_left_as_it_was():
    values = torch.tensor([-0.5, 2.0])
    to_uint8(values)
    assert values.tolist() == [-0.5, 2.0]


def test_wrong_types_are_refused():
    with pytest.raises(ValueError, match=r"images are torch\.float32, wanted torch\.uint8"):
        to_unit_range(torch.zeros(1))
    with pytest.raises(ValueError, match=r"images are torch\.uint8, wanted floating point"):
        to_uint8(torch.zeros(1, dtype=torch.uint8))
