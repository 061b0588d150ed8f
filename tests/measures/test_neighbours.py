"""Distances from what is seen in normal images, against a slow definition."""

import pytest
import torch

from fastddpm.measures import neighbours
from fastddpm.measures.neighbours import (
    MAX_FEATURES,
    MAX_SIDE,
    QUERIES,
    Bank,
    Projection,
    by_place,
    coarse,
    nearest,
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def apart(level, bank):
    """The definition: (N, M, h, w)."""
    return (level[:, None].double() - bank.double()).square().sum(2).sqrt()


def test_the_nearest_at_its_own_place_is_that_of_the_definition():
    level, bank = drawn(QUERIES + 3, 5, 4, 6), drawn(7, 5, 4, 6, seed=1).half()
    wanted, without = apart(level, bank), drawn(QUERIES + 3, 7, seed=2) > 0.5
    assert torch.allclose(nearest(level, by_place(bank)).double(), wanted.amin(1), rtol=1e-6)
    wanted[without] = torch.inf
    assert torch.allclose(nearest(level, by_place(bank), without).double(), wanted.amin(1), rtol=1e-6)
    assert nearest(drawn(2, 4, 1, 1), by_place(drawn(5, 4, 1, 1))).shape == (2, 1, 1)


def test_the_distance_of_an_image_from_itself_is_0():
    """Not the rounding of |q|^2, of which it is no part."""
    bank = drawn(30, 5, 4, 6).half() + 100
    assert nearest(bank.float(), by_place(bank)).max() == 0


def test_an_image_s_distance_does_not_depend_on_the_others():
    level, rows = drawn(QUERIES + 9, 5, 3, 3), by_place(drawn(40, 5, 3, 3, seed=1).half())
    together = nearest(level, rows)
    for place in (0, 5, QUERIES - 1, QUERIES, QUERIES + 8):
        assert torch.equal(nearest(level[place : place + 1], rows)[0], together[place])
    assert nearest(level[:0], rows).shape == (0, 3, 3)


def test_projections_keep_distances_in_standard_deviations():
    spread = torch.tensor([1.0, 100.0, 0.01])[:, None, None]
    level = drawn(50, 3, 4, 4) * spread + 7
    projected = Projection.of(level)(level)
    standard = (level - level.mean((0, 2, 3), keepdim=True)) / level.std((0, 2, 3), keepdim=True)
    a, b = (x.movedim(1, -1).flatten(0, -2)[:30] for x in (projected, standard))
    assert torch.allclose(torch.cdist(a, a), torch.cdist(b, b), rtol=1e-2, atol=1e-3)
    many = drawn(4, MAX_FEATURES + 10, 4, 4)
    assert Projection.of(many)(many).shape == (4, MAX_FEATURES, 4, 4)
    flat = torch.zeros(4, 2, 3, 3)
    assert torch.isfinite(Projection.of(flat)(flat)).all(), "a layer that sees nothing"
    one = drawn(4, 1, 3, 3)
    assert Projection.of(one)(one).shape == one.shape


@pytest.mark.parametrize(("side", "kept"), [(7, 7), (MAX_SIDE, MAX_SIDE), (28, 14), (32, 16), (33, 11), (64, 16)])
def test_large_maps_are_averaged(side, kept):
    found = coarse(torch.ones(1, 2, side, side))
    assert found.shape == (1, 2, kept, kept)
    assert torch.equal(found, torch.ones_like(found))


def test_maps_are_distances_over_those_of_a_sample_from_what_is_fixed_and_not_its_own():
    level, groups = drawn(12, 2, 3, 3), torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9])
    project = Projection.of(level)
    kept, fixed, sample = project(level).half().float(), torch.arange(12) >= 4, torch.tensor([4, 7, 9])
    made = Bank.fit([kept], [project], (3, 3), sample, fixed, groups)
    wanted = apart(kept[sample], kept)
    wanted[(groups[sample][:, None] == groups) | ~fixed] = torch.inf
    assert made.scales[0] == pytest.approx(float(wanted.amin(1).mean()), rel=1e-3)
    assert torch.equal(made.levels[0].float(), kept)
    new = project(drawn(2, 2, 3, 3, seed=6))
    assert torch.allclose(made.maps([new]).double(), apart(new, kept).amin(1) / made.scales[0], rtol=1e-3)


def test_a_bank_larger_than_memory_allows_is_taken_in_parts(monkeypatch):
    level, rows = drawn(5, 4, 6, 6), by_place(drawn(30, 4, 6, 6, seed=1).half())
    without = drawn(5, 30, seed=2) > 0.5
    whole = nearest(level, rows, without)
    monkeypatch.setattr(neighbours, "MAX_ROWS", 7)
    assert torch.allclose(nearest(level, rows, without), whole, rtol=1e-5)
