"""Metrics of detectors against scikit-learn, slow definitions, and what must hold of any of them."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from fastddpm.measures.auroc import area_up_to, detection, pro, region_weights

POINTS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pro")


def case(seed, count=12, side=9, levels=None):
    """Scores, truth, maps and masks, half of the images anomalous; with `levels`, numbers with many ties."""
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 2 == 0
    masks = ndimage.binary_dilation(rng.random((count, side, side)) > 0.96, structure=np.ones((1, 2, 2)))
    masks[:, 4, 4] = True
    masks[~truth] = False
    maps = rng.random((count, side, side)) + 0.4 * masks
    if levels is not None:
        maps = np.floor(maps * levels)
    return maps.max(axis=(1, 2)), truth, maps, masks


def slow_pro(maps, masks, limit=0.3):
    """By its words: at every threshold, the share of normal pixels found, and the mean share of each region."""
    regions = [part == k for part, n in (ndimage.label(m, np.ones((3, 3))) for m in masks) for k in range(1, n + 1)]
    owners = [i for i, mask in enumerate(masks) for _ in range(ndimage.label(mask, np.ones((3, 3)))[1])]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel()), reverse=True):
        found = maps >= threshold
        share = np.mean([found[i][region].mean() for i, region in zip(owners, regions, strict=True)])
        points.append((found[~masks].mean(), share))
    false, true = map(np.array, zip(*points, strict=True))
    grid = np.unique(np.append(false[false < limit], limit))
    curve = [np.interp(limit, false, true) if x == limit else true[false == x].max() for x in grid]
    # vertical rises count from their foot: straight lines from the last point of each share of normal pixels
    area = sum(
        (b - a) * (true[false == a].max() + (true[false == b].min() if b != limit else y)) / 2
        for a, b, y in zip(grid, grid[1:], curve[1:], strict=False)
    )
    return area / limit


@pytest.mark.parametrize("levels", [None, 6], ids=["distinct", "ties"])
def test_numbers_are_those_of_scikit_learn(levels):
    scores, truth, maps, masks = case(0, levels=levels)
    found = detection(scores, truth, maps, masks, resamples=0)
    assert found.image_auroc == roc_auc_score(truth, scores)
    assert found.image_ap == average_precision_score(truth, scores)
    assert found.pixel_auroc == roc_auc_score(masks.ravel(), maps.ravel())
    assert found.pixel_ap == average_precision_score(masks.ravel(), maps.ravel())
    assert (found.num_normal, found.num_anomalous) == (6, 6)
    assert found.intervals == {}


@pytest.mark.parametrize("levels", [None, 6], ids=["distinct", "ties"])
@pytest.mark.parametrize("seed", range(4))
def test_pro_is_its_slow_definition(seed, levels):
    _, _, maps, masks = case(seed, levels=levels)
    assert pro(maps, masks) == pytest.approx(slow_pro(maps, masks), abs=1e-12)


def test_a_small_region_counts_as_much_as_a_large_one_and_images_do_not_touch():
    masks = np.zeros((2, 8, 8), dtype=bool)
    masks[0, :4, :4] = True
    masks[0, 6, 6] = masks[0, 7, 7] = True  # touch by a corner
    masks[1, :4, :4] = True
    weights, count = region_weights(masks)
    assert count == 3
    assert weights[0, 0, 0] == 1 / 16
    assert weights[0, 6, 6] == 1 / 2
    assert weights[1, 7, 7] == 1
    only_large = masks.astype(float)
    only_large[0, 6:, 6:] = 0
    line_to_the_end = (1 - 2 / 3) * 0.3 / 2
    assert pro(only_large, masks) == pytest.approx(2 / 3 + line_to_the_end)


def test_perfect_reversed_constant_and_random_scores():
    _, truth, _, masks = case(1)
    perfect = detection(truth.astype(float), truth, masks.astype(float), masks, resamples=20)
    assert [getattr(perfect, name) for name in POINTS] == pytest.approx([1] * 5)
    assert all(pair == pytest.approx((1, 1)) for pair in perfect.intervals.values())
    reverse = detection(-truth.astype(float), truth, -masks.astype(float), masks, resamples=0)
    assert reverse.image_auroc == reverse.pixel_auroc == 0
    assert reverse.pro == 0
    constant = detection(np.zeros(12), truth, np.zeros(masks.shape), masks, resamples=20)
    assert constant.image_auroc == constant.pixel_auroc == 0.5
    assert constant.image_ap == 0.5
    assert constant.pixel_ap == masks.mean()
    assert constant.pro == pytest.approx(0.15)
    rng = np.random.default_rng(0)
    large, kinds = rng.random(4000), rng.random(4000) > 0.8
    by_chance = detection(large, kinds, resamples=0)
    assert by_chance.image_auroc == pytest.approx(0.5, abs=0.04)
    assert by_chance.image_ap == pytest.approx(0.2, abs=0.04)


def test_precision_and_recall_are_not_swapped():
    """One anomaly in ten is found first, then all normal ones: precision stays high only at low recall."""
    truth = np.array([True] * 10 + [False] * 30)
    scores = np.array([2.0] + [0.0] * 9 + [1.0] * 30)
    found = detection(scores, truth, resamples=0)
    assert found.image_ap == pytest.approx(0.1 * 1 + 0.9 * 10 / 40)
    precision, recall, _ = precision_recall_curve(truth, scores)
    assert auc(recall, precision) != pytest.approx(auc(np.sort(precision), recall[np.argsort(precision)]), abs=0.05)
    flipped = detection(-scores, ~truth, resamples=0)  # the same order, seen from the normal ones
    assert flipped.image_auroc == pytest.approx(found.image_auroc)
    assert flipped.image_ap != pytest.approx(found.image_ap, abs=0.05)


def test_an_interval_resamples_images_as_sklearn_would_measure_them():
    """Each drawn set of images, measured by scikit-learn with its images repeated."""
    scores, truth, maps, masks = case(2, levels=8)
    found = detection(scores, truth, maps, masks, resamples=30, seed=5)
    rng = np.random.default_rng(5)
    drawn = {name: [] for name in POINTS}
    for _ in range(30):
        sets = [rng.choice(np.flatnonzero(kind), kind.sum()) for kind in (truth, ~truth)]
        chosen = np.concatenate(sets)
        again = detection(scores[chosen], truth[chosen], maps[chosen], masks[chosen], resamples=0)
        for name in POINTS:
            drawn[name].append(getattr(again, name))
    for name, values in drawn.items():
        assert found.intervals[name] == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-9), name


def test_intervals_cover_and_shrink_with_more_images():
    wide = detection(*normal_scores(0, 40), resamples=200)
    narrow = detection(*normal_scores(0, 1000), resamples=200)
    widths = [found.intervals["image_auroc"][1] - found.intervals["image_auroc"][0] for found in (wide, narrow)]
    assert widths[1] < widths[0] / 3
    truth = 0.76025  # of two normal distributions one standard deviation apart
    low_high = [detection(*normal_scores(seed, 80), resamples=100).intervals["image_auroc"] for seed in range(60)]
    assert sum(low <= truth <= high for low, high in low_high) >= 51


def normal_scores(seed, count):
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 2 == 0
    return rng.normal(size=count) + truth, truth


def test_tensors_are_taken_and_rows_are_json():
    scores, truth, maps, masks = map(torch.from_numpy, case(3))
    found = detection(scores.float(), truth, maps.float(), masks, resamples=5)
    assert json.loads(json.dumps(found.row()))["num_regions"] == found.num_regions > 0
    images_only = detection(scores, truth, resamples=5)
    assert images_only.pro is images_only.num_regions is None
    assert set(images_only.intervals) == {"image_auroc", "image_ap"}
    assert detection(scores, truth, resamples=5, seed=1) == detection(scores, truth, resamples=5, seed=1)


def test_area_ends_between_two_points():
    assert area_up_to(np.array([0, 0.5, 1.0]), np.array([0, 0.5, 1.0]), 0.3) == pytest.approx(0.15)
    assert area_up_to(np.array([0, 0, 1.0]), np.array([0, 1.0, 1.0]), 0.3) == pytest.approx(1)


def test_what_cannot_be_measured_is_refused():
    scores, truth, maps, masks = case(4)
    with pytest.raises(ValueError, match="got 12 normal and 0 anomalous images; it takes some of both"):
        detection(scores, np.zeros(12, dtype=bool))
    with pytest.raises(ValueError, match=r"got scores of \(12,\) and is_anomalous of \(12,\), int64; wanted \(B,\)"):
        detection(scores, truth.astype(np.int64))
    with pytest.raises(ValueError, match="1 of 12 scores are not finite"):
        detection(np.where(np.arange(12) == 3, np.nan, scores), truth)
    with pytest.raises(ValueError, match="got maps without masks; give both, or neither"):
        detection(scores, truth, maps)
    with pytest.raises(ValueError, match="got masks without maps"):
        detection(scores, truth, None, masks)
    with pytest.raises(ValueError, match=r"wanted \(B, H, W\), and the same of bool"):
        detection(scores, truth, maps, masks[:, 1:])
    with pytest.raises(ValueError, match="6 normal images have a mask that marks something, and 6 anomalous ones"):
        detection(scores, truth, maps, masks[::-1] & np.ones((9, 9), dtype=bool))
    with pytest.raises(ValueError, match="maps have pixels that are not finite"):
        detection(scores, truth, np.where(masks, np.inf, maps), masks)
