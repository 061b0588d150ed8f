"""Distances from what is seen in normal images, against a slow definition."""

import itertools

import pytest
import torch

from fastddpm.measures import neighbours
from fastddpm.measures.neighbours import (
    FOLDS,
    MAX_FEATURES,
    MAX_SIDE,
    QUERIES,
    REACH,
    Bank,
    Projection,
    coarse,
    nearest,
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow(level, bank):
    """The definition, number by number."""
    count, _, height, width = level.shape
    found = torch.empty(count, height, width)
    for n, y, x in itertools.product(range(count), range(height), range(width)):
        around = bank[:, :, max(0, y - REACH) : y + REACH + 1, max(0, x - REACH) : x + REACH + 1]
        differences = around.double() - level[n, :, y, x].double()[None, :, None, None]
        found[n, y, x] = differences.square().sum(1).sqrt().min()
    return found


def test_the_nearest_is_that_of_the_definition():
    level, bank = drawn(3, 5, 4, 6), drawn(7, 5, 4, 6, seed=1).half()
    assert torch.allclose(nearest(level, bank), slow(level, bank), rtol=1e-3)


def test_an_image_s_distance_does_not_depend_on_the_others():
    level, bank = drawn(QUERIES + 9, 5, 3, 3), drawn(40, 5, 3, 3, seed=1).half()
    together = nearest(level, bank)
    for place in (0, 5, QUERIES - 1, QUERIES, QUERIES + 8):
        assert torch.equal(nearest(level[place : place + 1], bank)[0], together[place])
    assert nearest(level[:0], bank).shape == (0, 3, 3)


def test_a_neighbour_may_lie_beside_its_place_and_no_further():
    bank = torch.zeros(1, 1, 1, 6).half()
    bank[0, 0, 0, 2] = 5
    level = torch.zeros(1, 1, 1, 6)
    level[0, 0, 0] = 5
    assert (nearest(level, bank)[0, 0] < 0.01).tolist() == [False, True, True, True, False, False]


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


def test_own_maps_are_by_the_other_parts_and_the_known():
    level, known = drawn(10, 2, 3, 3), drawn(4, 2, 3, 3, seed=5)
    project = Projection.of(level)
    mine, others = project(level), project(known)
    made, maps = Bank.fit([mine], [others], [project], (3, 3))
    found = torch.empty(10, 3, 3)
    for place in range(10):
        elsewhere = [i for i in range(10) if i % FOLDS != place % FOLDS]
        found[place] = slow(mine[place : place + 1], torch.cat([mine[elsewhere], others]))[0]
    assert torch.allclose(maps, found / found.mean(), rtol=1e-2)
    assert made.scales[0] == pytest.approx(float(found.mean()), rel=1e-2)
    assert len(made.banks[0]) == 14
    assert made.maps([mine]).amax() < 0.05, "each finds itself, as float16 has it"
    new = project(drawn(2, 2, 3, 3, seed=6))
    assert torch.allclose(made.maps([new]), slow(new, torch.cat([mine, others])) / made.scales[0], rtol=1e-2)


def test_a_bank_larger_than_memory_allows_is_taken_in_parts(monkeypatch):
    level, bank = drawn(5, 4, 6, 6), drawn(30, 4, 6, 6, seed=1).half()
    whole = nearest(level, bank)
    monkeypatch.setattr(neighbours, "MAX_DISTANCES", QUERIES * 36 * 7)
    assert torch.allclose(nearest(level, bank), whole, rtol=1e-5)


def test_a_single_place_is_compared_with_itself():
    level, bank = drawn(3, 4, 1, 1), drawn(5, 4, 1, 1, seed=1).half()
    assert torch.allclose(nearest(level, bank), slow(level, bank), rtol=1e-3)
