"""p-values, thresholds, false discoveries and drift: what they promise, over many draws."""

import numpy as np
import pytest
from scipy import stats

from fastddpm.measures.conformal import band, drift, num_allowed, p_values, q_values, threshold


def test_p_values_count_normal_ones_at_least_as_high():
    groups = np.array([1.0, 2.0, 3.0, 3.0])
    assert p_values(np.array([0.0, 2.0, 2.5, 3.0, 9.0]), groups).tolist() == [1, 0.8, 0.6, 0.6, 0.2]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
def test_at_most_that_share_of_fresh_normal_ones_is_flagged(share):
    """Exactly share (n + 1), rounded down, over n + 1 where nothing is tied; the shares of 2,000 calibrations lie in
    the band as often as it says."""
    rng = np.random.default_rng(0)
    flagged = []
    for _ in range(2000):
        groups, fresh = rng.normal(size=150), rng.normal(size=400)
        above = fresh > threshold(groups, share)
        assert (above == (p_values(fresh, groups) <= share)).all()
        flagged.append(above.mean())
    wanted = num_allowed(share, 150) / 151
    assert wanted <= share
    assert np.mean(flagged) == pytest.approx(wanted, abs=4 * np.std(flagged) / len(flagged) ** 0.5)
    low, high = band(share, 150)
    true = stats.norm.sf([threshold(rng.normal(size=150), share) for _ in range(2000)])
    assert ((true >= low) & (true <= high)).mean() == pytest.approx(0.95, abs=0.02)


def test_of_images_that_belong_together_only_the_highest_score_counts():
    """Each of 40 parts has five shots with nearly one score: as 200 images they would promise five times too much."""
    rng = np.random.default_rng(0)
    flagged = {"groups": 0.0, "images": 0.0}
    for _ in range(400):
        shots = rng.normal(size=(40, 1)) + 0.1 * rng.normal(size=(40, 5))
        fresh = rng.normal(size=200) + 0.1 * rng.normal(size=200)
        flagged["groups"] += (fresh > threshold(shots.max(1), 0.03)).mean() / 400
        flagged["images"] += (fresh > threshold(shots.ravel(), 0.03)).mean() / 400
    assert flagged["groups"] <= 0.03
    assert flagged["images"] > 0.032


def test_what_so_few_cannot_promise_is_refused_with_the_number_it_takes():
    assert num_allowed(0.05, 19) == 1
    with pytest.raises(ValueError, match=r"18 normal images .* promise 0.053 at least; it takes 19: give more"):
        num_allowed(0.05, 18)
    with pytest.raises(ValueError, match="it takes 999: give more normal images, or allow more false alarms"):
        num_allowed(0.001, 200)
    for share in (0, 1):
        with pytest.raises(ValueError, match=f"false_alarms is {share}; it is a share"):
            num_allowed(share, 100)


def test_false_discoveries_are_kept_to_their_share():
    assert q_values(np.array([0.01, 0.04, 0.03, 0.9])).tolist() == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.9])
    assert q_values(np.array([])).tolist() == []
    rng = np.random.default_rng(0)
    false, found = [], []
    for _ in range(300):
        scores = np.concatenate([rng.normal(size=80), rng.normal(3, 1, 20)])
        said = q_values(p_values(scores, rng.normal(size=500))) <= 0.1
        false.append(said[:80].sum() / max(1, said.sum()))
        found.append(said[80:].mean())
    assert np.mean(false) <= 0.1
    assert np.mean(found) > 0.5


def test_a_row_of_normal_ones_is_seldom_called_changed_and_a_change_is_found_where_it_is():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=200)
    assert sum(drift(rng.normal(size=300), normal, seed).changed_by is not None for seed in range(40)) <= 2
    for seed in range(2):
        row = np.concatenate([rng.normal(size=500), rng.normal(1.5, 1, 200)])
        found = drift(row, normal, seed)
        assert found.evidence > 100
        assert 500 <= found.changed_by < 560
        assert 480 <= found.changed_from <= found.changed_by
    assert drift(np.array([]), normal).changed_by is None


def test_ties_are_no_change():
    assert drift(np.zeros(500), np.zeros(50)).changed_by is None
