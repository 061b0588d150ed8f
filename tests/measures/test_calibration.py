"""Scores and thresholds of what a model sees in normal images, and what is far from them."""

import numpy as np
import pytest
import torch

from fastddpm.measures.calibration import Calibration, check_normal, raw_scores
from fastddpm.measures.neighbours import Bank, Projection


def seen(count, seed=0, side=4):
    """Of two levels: at each place one of a few things, with grain."""
    draw = torch.Generator().manual_seed(seed)
    things = torch.randn(3, 5, 1, 1, generator=torch.Generator().manual_seed(99)) * 10
    found = []
    for size in (side, 2 * side):
        which = torch.randint(3, (count, size, size), generator=draw)
        found.append(things[which].flatten(3).movedim(-1, 1) + torch.randn(count, 5, size, size, generator=draw))
    return found


PROJECTIONS = [Projection.of(level) for level in seen(30, seed=50)]


def projected(levels):
    return [project(level) for project, level in zip(PROJECTIONS, levels, strict=True)]


def hashes(count, seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 16), dtype=np.uint8))


def calibrated(count=200, false_alarms=0.05, num_known=40, groups=None):
    """From `seen(count)`, whose hashes are `hashes(count + num_known, 0)`."""
    levels = [torch.cat(pair) for pair in zip(projected(seen(count)), projected(seen(num_known, 8)), strict=True)]
    own = torch.arange(count) if groups is None else groups
    all_groups = torch.cat([own, torch.arange(num_known) + int(own.max()) + 1])
    fixed = torch.arange(count + num_known) >= (count if num_known else 0)
    bank = Bank.fit(levels, PROJECTIONS, (12, 12), fixed.nonzero()[:, 0][:64], fixed, all_groups)
    return Calibration.fit(
        bank, [level[:count] for level in levels], all_groups, hashes(count + num_known, 0), start_timesteps=(50, 300),
        false_alarms=false_alarms, facts={"model": "a"},
    )  # fmt: skip


def judged(made, levels, seed=1):
    return made.judge(projected(levels), hashes(len(levels[0]), seed))


def test_normal_images_have_scores_about_0_and_maps_about_1():
    found = judged(calibrated(num_known=400), seen(200, seed=1))
    assert abs(found.scores.mean()) < 0.3
    assert 0.6 < found.scores.std() < 1.6
    assert found.maps.shape == (200, 12, 12)
    assert found.maps.mean() == pytest.approx(1, rel=0.2)
    assert not found.is_own.any()


def test_a_defect_is_found_and_stands_where_it_is():
    made, strange = calibrated(), seen(20, seed=2)
    strange[0][:, :, 1, 2] += 30
    found = judged(made, strange)
    assert bool((found.scores > made.image_threshold).all())
    assert bool((found.p_values == 1 / 201).all())
    places = found.maps.flatten(1).argmax(1)
    assert bool(((places // 12 >= 3) & (places // 12 < 6) & (places % 12 >= 6) & (places % 12 < 9)).all())


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_no_more_new_normal_images_are_above_the_thresholds_than_asked_for(share):
    made = calibrated(200, share)
    found = judged(made, seen(400, seed=2))
    spread = 3 * (share * (1 - share) * (1 / 200 + 1 / 400)) ** 0.5
    flagged = found.scores > made.image_threshold
    assert torch.equal(flagged, found.p_values <= share)
    assert float(flagged.double().mean()) == pytest.approx(share, abs=spread)
    marked = (found.maps > made.pixel_threshold).flatten(1).any(1)
    assert float(marked.double().mean()) == pytest.approx(share, abs=spread)


def test_an_image_of_the_calibration_is_judged_without_itself_and_its_group():
    groups = torch.arange(200) // 2
    made = calibrated(groups=groups)
    assert (made.facts["num_groups"], len(made.group_scores)) == (100, 100)
    own = made.judge(projected(seen(200)), hashes(240, 0)[:200])
    assert own.is_own.all()
    highest = own.scores.reshape(100, 2).amax(1)
    assert torch.allclose(highest, made.group_scores, atol=1e-4)
    assert float(own.p_values.min()) == 1 / 100, "among the 99 others"
    fresh = made.judge(projected(seen(200)), hashes(200, 7))
    assert not fresh.is_own.any()
    assert fresh.scores.max() < own.scores.min(), "what only looks the same is its own neighbour"


def test_the_score_is_the_mean_of_the_highest_pixels():
    maps = torch.zeros(2, 10, 10)
    maps[0, 0, :3] = torch.tensor([1.0, 2.0, 3.0])
    assert raw_scores(maps).tolist() == pytest.approx([2.0, 0.0], abs=1e-6)


def test_a_file_gives_back_the_same(tmp_path):
    kept = calibrated(30)
    assert kept.facts == {"model": "a", "false_alarms": 0.05, "num_images": 30, "num_groups": 30, "num_known": 40}
    (tmp_path / "c.safetensors").write_bytes(kept.to_bytes())
    loaded = Calibration.load(tmp_path / "c.safetensors")
    assert (loaded.start_timesteps, loaded.facts) == (kept.start_timesteps, kept.facts)
    assert (loaded.image_threshold, loaded.pixel_threshold) == (kept.image_threshold, kept.pixel_threshold)
    first, second = (judged(of, seen(7, seed=5)) for of in (kept, loaded))
    assert torch.equal(first.maps, second.maps)
    assert torch.equal(first.p_values, second.p_values)
    assert loaded.to_bytes() == kept.to_bytes()


def test_what_is_no_calibration_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no file; make one with `fastddpm detect`"):
        Calibration.load(tmp_path / "none.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"words")
    with pytest.raises(ValueError, match="holds no calibration of ours"):
        Calibration.load(tmp_path / "c.safetensors")
    (tmp_path / "c.safetensors").write_bytes(
        calibrated(30).to_bytes().replace(b'\\"version\\": 2', b'\\"version\\": 1')
    )
    with pytest.raises(ValueError, match="it is of another version of fastddpm\\); make one anew"):
        Calibration.load(tmp_path / "c.safetensors")


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="got 19 normal images to calibrate with; give at least 20"):
        check_normal(19, range(19), 0.1)
    with pytest.raises(ValueError, match="10 normal images that are no near-copies promise 0.091 at least"):
        check_normal(40, [place % 10 for place in range(40)], 0.05)
