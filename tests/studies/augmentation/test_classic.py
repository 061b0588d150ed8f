"""How far images are shifted, turned and distorted; tests/data/test_augment.py has the resampling."""

import math

import pytest
import torch

from fastddpm.studies.augmentation.classic import distort, smooth
from fastddpm.studies.augmentation.settings import GainClassic

NONE = GainClassic(shift=0.0, rotation=0.0, elastic=0.0)
EPS = 1e-5
"""bilinear weights of float32 places, of values near 1"""


def images(count=3, channels=2, height=9, width=7):
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


def test_no_strength_changes_nothing():
    given = images()
    assert torch.allclose(distort(given, NONE, torch.Generator().manual_seed(0)), given, atol=EPS)


def test_each_image_has_amounts_of_its_own_and_a_seed_decides_them():
    given = images(1).expand(4, -1, -1, -1)
    first, again, other = (distort(given, GainClassic(), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert len({image.numpy().tobytes() for image in first}) == 4


def test_shifts_go_as_far_as_they_may_and_no_further():
    point = torch.zeros(1, 1, 21, 21)
    point[..., 10, 10] = 1
    moved = distort(
        point.expand(500, -1, -1, -1),
        GainClassic(shift=2.0, rotation=0.0, elastic=0.0),
        torch.Generator().manual_seed(0),
    )
    places = torch.arange(21.0) - 10
    for weights in (moved.sum((1, 3)), moved.sum((1, 2))):  # the middle of mass, down and to the right
        middles = (weights * places).sum(1)
        assert 1.95 < middles.max() <= 2 + EPS
        assert -2 - EPS <= middles.min() < -1.95
        assert float(middles.mean()) == pytest.approx(0, abs=4 * 2 / math.sqrt(3 * 500))


@pytest.mark.parametrize("width", [0.5, 2.0, 9.0])
def test_smoothed_noise_keeps_its_variance_and_neighbours_move_alike(width):
    noise = torch.randn(4000, 8, 6, generator=torch.Generator().manual_seed(0))
    field = smooth(noise, width)
    assert field.square().mean(0) == pytest.approx(torch.ones(8, 6), abs=5 * math.sqrt(2 / 4000))
    alike = float((field[:, 2, 2] * field[:, 2, 3]).mean())
    assert alike == pytest.approx(math.exp(-1 / (4 * width**2)), abs=0.12)  # two Gaussians, a pixel apart


def test_the_elastic_strength_is_in_pixels():
    """On a ramp, a value is a place: its change is the displacement."""
    ramp = torch.arange(41.0).expand(300, 1, 41, 41)
    moved = distort(ramp, GainClassic(shift=0.0, rotation=0.0, elastic=1.0), torch.Generator().manual_seed(0))
    change = (moved - ramp)[:, 0, 20, 20]
    assert float(change.std()) == pytest.approx(1 / math.sqrt(2), rel=0.2)
