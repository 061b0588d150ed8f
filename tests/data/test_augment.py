"""Augmentation: what each amount does, that 0 changes no byte, and that positions alone decide."""

import math

import pytest
import torch

from fastddpm.config import AugmentConfig
from fastddpm.data import NUM_AMOUNTS, amounts_at, augment
from fastddpm.data.augment import warp

EPS = 1e-5
"""bilinear weights of float32 places, of values near 1"""
ALL = AugmentConfig(shift=0.1, turn=20.0, zoom=0.2, contrast=0.3, brightness=0.2)
DOWN, RIGHT, TURN, ZOOM, CONTRAST, BRIGHTNESS = range(NUM_AMOUNTS)


def images(count=3, channels=2, height=9, width=7):
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


def pictures(count, channels=3, side=16):
    return (images(count, channels, side, side) * 256).to(torch.uint8)


def only(amount, value, count=1):
    amounts = torch.zeros(count, NUM_AMOUNTS, dtype=torch.float64)
    amounts[:, amount] = value
    return amounts


def still(of, **changes):
    count = len(of)
    return warp(of, **{"shifts": torch.zeros(count, 2), "degrees": torch.zeros(count), **changes})


@pytest.mark.parametrize(("down", "right"), [(0, 2), (3, 0), (-1, 2), (2, -3)])
def test_a_shift_by_whole_pixels_moves_them(down, right):
    given = images()
    moved = still(given, shifts=torch.tensor([[down, right]] * 3, dtype=torch.float32))
    height, width = given.shape[2:]
    inside = (slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right)))
    before = (slice(max(0, -down), height + min(0, -down)), slice(max(0, -right), width + min(0, -right)))
    assert torch.allclose(moved[:, :, *inside], given[:, :, *before], atol=EPS)


def test_the_edge_is_a_mirror():
    given = images()
    moved = still(given, shifts=torch.tensor([[2.0, 0.0]] * 3))
    assert torch.allclose(moved[:, :, [1, 0]], given[:, :, :2], atol=EPS)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_goes_against_the_clock(quarters):
    given = images(height=8, width=8)
    turned = still(given, degrees=torch.full((3,), 90.0 * quarters))
    assert torch.allclose(turned, torch.rot90(given, quarters, (2, 3)), atol=1e-4)


def test_a_constant_displacement_is_a_shift_the_other_way():
    given = images()
    field = torch.zeros(3, 2, 9, 7)
    field[:, 1] = 1
    assert torch.allclose(
        still(given, displacements=field), still(given, shifts=torch.tensor([[0.0, -1.0]] * 3)), atol=EPS
    )


def test_a_zoom_of_two_shows_the_middle_twice_as_large():
    """On a ramp, a value is a place."""
    ramp = torch.arange(-4.0, 5.0).expand(3, 1, 9, 9)
    assert torch.allclose(still(ramp, zooms=torch.full((3,), 2.0)), ramp / 2, atol=EPS)


def test_amounts_of_0_change_no_byte():
    given = torch.randint(0, 256, (5, 3, 33, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augment(given, torch.zeros(5, NUM_AMOUNTS, dtype=torch.float64), ALL), given)


def test_images_that_are_left_as_they_are_keep_their_bytes_and_have_no_amounts():
    given, config = pictures(400), AugmentConfig(turn=20.0, contrast=0.3, probability=0.25)
    amounts = amounts_at(torch.arange(400), config, seed=1)
    changed = (augment(given, amounts, config) != given).flatten(1).any(1)
    assert torch.equal(changed, (amounts != 0).any(1))
    assert float(changed.double().mean()) == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 400))
    assert ((amounts[changed] != 0).sum(1) == 2).all()


def test_amounts_are_uniform_and_independent():
    """4,000 draws: the mean of u^2 is 1/3 with a deviation of 0.0047, a correlation is 0 with one of 1/63."""
    drawn = amounts_at(torch.arange(8000), AugmentConfig(**{**vars(ALL), "probability": 0.5}), seed=3)
    drawn = drawn[(drawn != 0).any(1)]
    assert -1 <= drawn.min() < -0.99
    assert 0.99 < drawn.max() < 1
    assert drawn.square().mean(0) == pytest.approx(torch.full((NUM_AMOUNTS,), 1 / 3), abs=5 * 0.0047)
    assert (torch.corrcoef(drawn.T) - torch.eye(NUM_AMOUNTS)).abs().max() < 5 / math.sqrt(len(drawn))


def test_a_batch_gives_each_image_what_it_gets_alone():
    given, positions = pictures(24, side=19), torch.arange(1000, 1024)
    whole = augment(given, amounts_at(positions, ALL, seed=7), ALL)
    assert (whole != given).flatten(1).any(1).sum() > 6
    for size in (1, 3, 8):
        parts = [
            augment(some, amounts_at(where, ALL, seed=7), ALL)
            for some, where in zip(given.split(size), positions.split(size), strict=True)
        ]
        assert torch.equal(torch.cat(parts), whole)


def test_brightness_is_a_share_of_the_range_and_contrast_keeps_the_mean():
    given = (pictures(1) // 4 + 96).to(torch.uint8)  # 96 to 159: nothing is cut off
    brighter = augment(given, only(BRIGHTNESS, 0.8), ALL)
    assert torch.equal(brighter.int() - given.int(), torch.full(given.shape, round(255 * 0.2 * 0.8), dtype=torch.int32))
    stronger, weaker = (augment(given, only(CONTRAST, value), ALL).double() for value in (1.0, -1.0))
    for changed, factor in ((stronger, 1.3), (weaker, 1 / 1.3)):
        assert float(changed.mean()) == pytest.approx(float(given.double().mean()), abs=0.5)
        assert float(changed.std() / given.double().std()) == pytest.approx(factor, rel=0.02)


def test_a_shift_is_a_share_of_the_side_down_and_to_the_right():
    given = pictures(1, side=20)
    for amount, axis in ((DOWN, 2), (RIGHT, 3)):
        moved = augment(given, only(amount, 1.0), ALL)  # a tenth of 20
        assert torch.equal(moved.narrow(axis, 2, 18), given.narrow(axis, 0, 18))


def test_what_goes_beyond_white_is_cut_off():
    white = torch.full((1, 1, 4, 4), 250, dtype=torch.uint8)
    assert augment(white, only(BRIGHTNESS, 1.0), ALL).unique().tolist() == [255]
    assert augment(255 - white, only(BRIGHTNESS, -1.0), ALL).unique().tolist() == [0]
