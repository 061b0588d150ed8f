"""Scores and thresholds of what a model says of normal images, and what is far from them."""

import pytest
import torch

from fastddpm.measures.calibration import (
    KINDS,
    MIN_NORMAL,
    Answers,
    Calibration,
    Probe,
    raw_scores,
)
from fastddpm.measures.neighbours import FLOOR, Projection

PROBE = Probe(kinds=("noise", "pixel"))


def residuals(count, seed=0, side=12):
    draw = torch.Generator().manual_seed(seed)
    return {
        "noise": torch.randn(count, 3, 2, side, side, generator=draw),
        "pixel": torch.randn(count, 2, 2, side, side, generator=draw) * 5 + 3,
    }


def answers(count, seed=0):
    return Answers(residuals(count, seed), ())


def seen(count, seed=0, side=4):
    """Of two levels: at each place one of a few things, with grain."""
    draw = torch.Generator().manual_seed(seed)
    things = torch.randn(3, 5, 1, 1, generator=torch.Generator().manual_seed(99)) * 10
    found = []
    for size in (side, 2 * side):
        which = torch.randint(3, (count, size, size), generator=draw)
        found.append(things[which].flatten(3).movedim(-1, 1) + torch.randn(count, 5, size, size, generator=draw))
    return found


def calibrated(count=400, false_alarms=0.05):
    return fit(answers(count), false_alarms=false_alarms)


def fit(given, probe=PROBE, false_alarms=0.05, **more):
    return Calibration.fit(given, probe, size=(12, 12), false_alarms=false_alarms, facts={"model": "a"}, **more)


def with_features(count, false_alarms=0.05, known=None):
    """Of all three kinds."""
    levels = seen(count)
    projections = [Projection.of(level) for level in levels]
    projected = Answers(residuals(count), [project(x) for project, x in zip(projections, levels, strict=True)])
    others = None if known is None else [project(x) for project, x in zip(projections, known, strict=True)]
    made = fit(projected, Probe(), false_alarms, known=others, projections=projections)
    return made, lambda of, levels: Answers(of, [p(x) for p, x in zip(projections, levels, strict=True)])


def test_normal_images_have_scores_about_0_and_maps_about_1():
    judged = calibrated().judge(answers(200, seed=1))
    for kind in ("noise", "pixel"):
        assert abs(judged.kind_scores[kind].mean()) < 0.3
        assert 0.6 < judged.kind_scores[kind].std() < 1.6
        assert judged.kind_maps[kind].mean() == pytest.approx(1 / (1 + FLOOR), rel=0.05)
    assert torch.allclose(judged.scores, (judged.kind_scores["noise"] + judged.kind_scores["pixel"]) / 2)
    assert torch.allclose(judged.maps, (judged.kind_maps["noise"] + judged.kind_maps["pixel"]) / 2)


def test_features_decide_where_they_are_asked_for():
    made, of = with_features(100)
    assert made.probe.deciding == ("feature",)
    judged = made.judge(of(residuals(200, seed=1), seen(200, seed=1)))
    assert set(judged.kind_scores) == set(KINDS)
    assert torch.equal(judged.scores, judged.kind_scores["feature"])
    assert torch.equal(judged.maps, judged.kind_maps["feature"])
    assert judged.maps.shape == (200, 12, 12)
    assert judged.maps.mean() == pytest.approx(1, rel=0.05)
    assert -0.6 < judged.scores.mean() < 0.2, "a little nearer: they are compared with a fifth more"
    strange = seen(20, seed=2)
    strange[0][:, :, 1, 2] += 30
    found = made.judge(of(residuals(20, seed=2), strange))
    assert bool((found.scores > made.image_threshold).all())
    places = found.maps.flatten(1).argmax(1)
    assert bool(((places // 12 >= 3) & (places // 12 < 6) & (places % 12 >= 6) & (places % 12 < 9)).all())


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_as_many_new_normal_images_are_above_the_thresholds_as_asked_for(share):
    found = calibrated(1000, share)
    judged = found.judge(answers(2000, seed=2))
    spread = 4 * (share * (1 - share) * (1 / 1000 + 1 / 2000)) ** 0.5
    assert float((judged.scores > found.image_threshold).double().mean()) == pytest.approx(share, abs=spread)
    marked = (judged.maps > found.pixel_threshold).flatten(1).any(1)
    assert float(marked.double().mean()) == pytest.approx(share, abs=spread)


def test_a_small_defect_is_found_and_stands_where_it_is():
    found, others = calibrated(), answers(50, seed=3)
    others.residuals["noise"][:, :, :, 2:5, 6:9] += 4
    judged = found.judge(others)
    assert bool((judged.scores > found.image_threshold).all())
    places = judged.maps.flatten(1).argmax(1)
    assert bool(((places // 12 >= 2) & (places // 12 < 5) & (places % 12 >= 6) & (places % 12 < 9)).all())


def test_the_score_is_the_mean_of_the_highest_pixels():
    maps = torch.zeros(2, 10, 10)
    maps[0, 0, :3] = torch.tensor([1.0, 2.0, 3.0])
    assert raw_scores(maps).tolist() == pytest.approx([2.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_thresholds_of_features_are_those_of_new_images_too(share):
    """Although a bank knows its own images, and others besides."""
    made, of = with_features(200, share, known=seen(50, seed=8))
    judged = made.judge(of(residuals(400, seed=2), seen(400, seed=2)))
    spread = 4 * (share * (1 - share) * (1 / 200 + 1 / 400)) ** 0.5
    assert float((judged.scores > made.image_threshold).double().mean()) == pytest.approx(share, abs=spread)
    own = made.judge(of(residuals(200), seen(200)))
    assert float((own.scores > made.image_threshold).double().mean()) == 0, "each is its own neighbour"


def test_thresholds_are_not_taken_from_images_that_made_the_moments():
    """With few images, moments fit their own images too well: thresholds from these would be too low."""
    normal = answers(MIN_NORMAL)
    found = fit(normal, false_alarms=0.5)
    assert found.image_threshold > float(found.judge(normal).scores.median())


def test_a_file_gives_back_the_same(tmp_path):
    kept, of = with_features(30, known=seen(5, seed=8))
    assert kept.facts == {"model": "a", "false_alarms": 0.05, "num_images": 30, "num_known": 5}
    new = of(residuals(7, seed=5), seen(7, seed=5))
    (tmp_path / "c.safetensors").write_bytes(kept.to_bytes())
    loaded = Calibration.load(tmp_path / "c.safetensors")
    assert (loaded.probe, loaded.facts) == (kept.probe, kept.facts)
    assert (loaded.image_threshold, loaded.pixel_threshold) == (kept.image_threshold, kept.pixel_threshold)
    assert torch.equal(loaded.judge(new).maps, kept.judge(new).maps)
    assert torch.equal(loaded.judge(new).scores, kept.judge(new).scores)


def test_what_is_no_calibration_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no file; make one with `fastddpm detect`"):
        Calibration.load(tmp_path / "none.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"words")
    with pytest.raises(ValueError, match="holds no calibration of ours"):
        Calibration.load(tmp_path / "c.safetensors")


def test_too_few_images_and_odd_shares_are_refused():
    with pytest.raises(ValueError, match="got 19 normal images to calibrate with; give at least 20"):
        calibrated(19)
    with pytest.raises(ValueError, match="false_alarms is 1.0; it is a share"):
        calibrated(40, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ()}, "wanted some of noise, pixel, feature"),
        ({"kinds": ("noises",)}, "kinds are \\['noises'\\]"),
        ({"start_timesteps": (0, 5)}, "start_timesteps is \\[0, 5\\]"),
        ({"reconstruct_from": (5, 5)}, "each once"),
        ({"num_noises": 0}, "num_noises is 0"),
    ],
)
def test_a_probe_that_asks_nothing_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Probe(**settings)
