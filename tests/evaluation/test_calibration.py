"""What normal residuals are like, and what is far from them."""

import pytest
import torch

from fastddpm.evaluation.calibration import (
    FLOOR,
    MIN_NORMAL,
    Calibration,
    Moments,
    Probe,
    raw_scores,
    smoothing_of,
)

PROBE = Probe(kinds=("noise", "pixel"))


def residuals(count, seed=0, side=12):
    draw = torch.Generator().manual_seed(seed)
    return {
        "noise": torch.randn(count, 3, 2, side, side, generator=draw),
        "pixel": torch.randn(count, 2, 2, side, side, generator=draw) * 5 + 3,
    }


def calibrated(count=400, false_alarms=0.05):
    return Calibration.fit(residuals(count), PROBE, false_alarms, {"model": "a"})


def test_normal_images_have_scores_about_0_and_maps_about_1():
    judged = calibrated().judge(residuals(200, seed=1))
    for kind in ("noise", "pixel"):
        assert abs(judged.kind_scores[kind].mean()) < 0.3
        assert 0.6 < judged.kind_scores[kind].std() < 1.6
        assert judged.kind_maps[kind].mean() == pytest.approx(1 / (1 + FLOOR), rel=0.05)
    assert torch.allclose(judged.scores, (judged.kind_scores["noise"] + judged.kind_scores["pixel"]) / 2)
    assert torch.allclose(judged.maps, (judged.kind_maps["noise"] + judged.kind_maps["pixel"]) / 2)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_as_many_new_normal_images_are_above_the_thresholds_as_asked_for(share):
    found = calibrated(1000, share)
    judged = found.judge(residuals(2000, seed=2))
    spread = 4 * (share * (1 - share) * (1 / 1000 + 1 / 2000)) ** 0.5
    assert float((judged.scores > found.image_threshold).double().mean()) == pytest.approx(share, abs=spread)
    marked = (judged.maps > found.pixel_threshold).flatten(1).any(1)
    assert float(marked.double().mean()) == pytest.approx(share, abs=spread)


def test_a_small_defect_is_found_and_stands_where_it_is():
    found, others = calibrated(), residuals(50, seed=3)
    others["noise"][:, :, :, 2:5, 6:9] += 4
    judged = found.judge(others)
    assert bool((judged.scores > found.image_threshold).all())
    places = judged.maps.flatten(1).argmax(1)
    assert bool(((places // 12 >= 2) & (places // 12 < 5) & (places % 12 >= 6) & (places % 12 < 9)).all())


def test_what_varies_among_normal_images_counts_less_there():
    """The same residual, at a place where normal images differ much and where they hardly do."""
    normal = torch.randn(300, 1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    normal[..., :6] *= 10
    moments = Moments.of(normal, "noise")
    left, right = torch.zeros(1, 1, 1, 12, 12), torch.zeros(1, 1, 1, 12, 12)
    left[..., 2], right[..., 9] = 10, 10
    assert float(moments.judge(right, "noise")[0]) > float(moments.judge(left, "noise")[0])


def test_a_distance_of_features_below_the_usual_is_no_anomaly():
    normal = torch.rand(100, 1, 1, 12, 12, generator=torch.Generator().manual_seed(0)) + 1
    moments = Moments.of(normal, "feature")
    none, _ = moments.judge(torch.zeros(1, 1, 1, 12, 12), "feature")
    more, _ = moments.judge(torch.full((1, 1, 1, 12, 12), 3.0), "feature")
    assert float(none) < -1 < 1 < float(more)
    signed, _ = moments.judge(torch.zeros(1, 1, 1, 12, 12), "pixel")
    assert float(signed) > 1


def test_the_score_is_the_mean_of_the_highest_pixels():
    maps = torch.zeros(2, 10, 10)
    maps[0, 0, :3] = torch.tensor([1.0, 2.0, 3.0])
    assert raw_scores(maps).tolist() == pytest.approx([2.0, 0.0], abs=1e-6)


def test_smoothing_grows_with_the_image():
    assert [smoothing_of(side, side) for side in (8, 28, 64, 128, 256)] == [3, 3, 7, 15, 29]


def test_thresholds_are_not_taken_from_images_that_made_the_moments():
    """With few images, moments fit their own images too well: thresholds from these would be too low."""
    normal = residuals(MIN_NORMAL)
    found = Calibration.fit(normal, PROBE, 0.5, {})
    assert found.image_threshold > float(found.judge(normal).scores.median())


def test_a_file_gives_back_the_same(tmp_path):
    kept, new = calibrated(), residuals(7, seed=5)
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
