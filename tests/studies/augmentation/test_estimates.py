"""Means, differences, intervals, and what is said of them."""

import math

import numpy as np
import pytest
from scipy import stats

from fastddpm.studies.augmentation.estimates import (
    COSTS,
    PAYS,
    UNCLEAR,
    Accuracies,
    Accuracy,
    SeedMean,
    Share,
    estimate,
    verdict,
)
from fastddpm.studies.augmentation.page import charts_of

MAIN = (300, 4)


def rows(size, condition, values, kind=None, point=(None, None)):
    return [Accuracy(size, seed, condition, kind, *point, value) for seed, value in enumerate(values)]


def measured(points=(MAIN,), kind="own", size=50):
    """(a) goes up by a point from seed to seed, (b) is 4 points better, (c) 2, (d) 3 with a spread of its own."""
    plain = np.array([0.70, 0.71, 0.72])
    found = rows(size, "reals", plain) + rows(size, "classic", plain + 0.04)
    for place, point in enumerate(points):
        found += rows(size, "drawn", plain + 0.02 - 0.05 * place, kind, point)
        found += rows(size, "both", plain + np.array([0.00, 0.03, 0.06]), kind, point)
    return found


def test_an_interval_is_scipys():
    values = np.random.default_rng(0).normal(0.9, 0.01, 5)
    found = estimate(values.tolist())
    low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.mean == pytest.approx(values.mean())


def test_an_interval_by_hand():
    """Of 1, 2, 3: s = 1, t of two degrees of freedom is 4.3027."""
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.high) == pytest.approx((2, 2 + 4.3027 / math.sqrt(3)), rel=1e-4)


def test_one_seed_has_no_interval():
    with pytest.raises(ValueError, match=r"got 1 value; an interval wants at least two seeds"):
        estimate([0.5])


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.01, 0.03, PAYS), (-0.03, -0.01, COSTS), (-0.01, 0.03, UNCLEAR), (0.0, 0.1, UNCLEAR), (-0.1, 0.0, UNCLEAR)],
)
def test_the_verdict_is_whether_the_interval_holds_no_difference(low, high, word):
    assert verdict(SeedMean((low + high) / 2, low, high)) == word
    assert (PAYS, COSTS, UNCLEAR) == ("pays", "costs", "no difference shown")


def test_differences_are_taken_seed_by_seed():
    """Seeds differ by more than conditions do: intervals of the means overlap, the difference is certain."""
    row = Accuracies(measured()).row(50, "own", MAIN)
    reals, drawn = row["accuracy"]["reals"], row["accuracy"]["drawn"]
    assert reals["high"] > drawn["low"]
    alone = row["difference"]["drawn - reals"]
    assert (alone["low"], alone["high"]) == pytest.approx((0.02, 0.02))
    assert alone["verdict"] == "pays"
    assert row["difference"]["drawn - classic"]["verdict"] == "costs"
    beside = row["difference"]["both - classic"]
    assert beside["mean"] == pytest.approx(-0.01)
    assert beside["verdict"] == "no difference shown"
    assert set(row["difference"]) == {
        "drawn - reals", "both - classic", "drawn - classic", "both - reals", "classic - reals",
    }  # fmt: skip


def test_what_draws_nothing_is_compared_with_every_kind_and_point():
    other = (100, 4)
    found = Accuracies(measured((MAIN, other)) + rows(50, "drawn", [0.5, 0.5, 0.5], "all", MAIN))
    assert found.of(50, "reals", "own", MAIN) == found.of(50, "reals", "all", other) == [0.70, 0.71, 0.72]
    assert found.of(50, "drawn", "all", MAIN) == [0.5, 0.5, 0.5]
    assert found.difference(50, ("drawn", "reals"), "own", other).mean == pytest.approx(-0.03)


def test_seeds_are_paired_in_whatever_order_they_were_measured():
    straight, turned = Accuracies(measured()), Accuracies(measured()[::-1])
    assert straight.row(50, "own", MAIN) == turned.row(50, "own", MAIN)


def test_plots_hold_the_differences_and_their_intervals():
    points = (MAIN, (100, 4), (300, 16))
    found = Accuracies(measured(points) + measured(points[:2], size=200))
    table = [found.row(50, "own", point) for point in points] + [found.row(200, "own", point) for point in points[:2]]
    kept = [Share(50, "own", start, share) for start, share in ((300, 0.9), (100, 1.0))]
    over_t, beside_over_t, over_k, _, keeping = charts_of(table, kept, MAIN)
    assert [chart.over for chart in (over_t, over_k)] == ["start timestep", "K"]
    assert [curve.name for curve in over_t.curves] == ["no difference", "50 labelled", "200 labelled"]
    _, few, _ = over_t.curves
    assert few.values == pytest.approx([-3, 2])
    assert few.places == pytest.approx([100, 300], abs=3)
    assert few.half_widths == pytest.approx([0, 0], abs=1e-9)
    half = 100 * estimate([-0.04, -0.01, 0.02]).high + 1
    assert beside_over_t.curves[1].half_widths == pytest.approx([half, half])
    assert [len(curve.values) for curve in over_k.curves] == [2, 2, 1]
    assert keeping.curves[0].values == [100, 90]


def test_one_point_has_no_plot():
    assert charts_of([Accuracies(measured()).row(50, "own", MAIN)], [], MAIN) == []
