"""Scores of features against cases whose answer is known, and against torchmetrics."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from fastddpm.measures import fidelity
from fastddpm.measures.fidelity import beside_floor, fid, floor, interval, kid, memberships, scores


def normals(count, features=4, shift=0.0, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, features, generator=generator, dtype=torch.float64) * scale + shift


class Flat(nn.Module):
    """Images (B, 1, 2, 2) as their own features."""

    num_features = 4

    def forward(self, images):
        return images.flatten(1)


def images_of(features):
    return features.reshape(-1, 1, 2, 2)


def test_the_interval_of_kid_in_one_pass_is_that_of_resampled_sets():
    rng = np.random.default_rng(0)
    samples, reals = torch.from_numpy(rng.normal(0.2, 1, (60, 5))), torch.from_numpy(rng.normal(0, 1, (90, 5)))
    options = {"resamples": 40, "seed": 3}
    found, fast = kid(samples, reals, **options)
    assert kid(samples, reals) == (pytest.approx(found, rel=1e-12), None)
    slow = interval(lambda a, b: kid(a, b)[0], samples, reals, found, **options)
    assert fast == pytest.approx(slow, rel=1e-9)


def test_fid_of_known_normals():
    """Exactly whitened rows: means and variances are what they are said to be."""
    rows = normals(200)
    rows = (rows - rows.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(rows.T))).T
    assert fid(rows, rows) == pytest.approx(0, abs=1e-9)
    assert fid(rows, rows + 3) == pytest.approx(4 * 9, rel=1e-9)
    assert fid(rows, rows * 2) == pytest.approx(4 * (1 + 4 - 2 * 2), rel=1e-9)


def test_fid_and_kid_are_those_of_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = normals(300, shift=0.3), normals(400, scale=1.3, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frechet = FrechetInceptionDistance(feature=Flat()).set_dtype(torch.float64)
        kernel = KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=300, reset_real_features=False)
    for rows, real in ((a, False), (b, True)):
        frechet.update(images_of(rows), real=real)
    assert fid(a, b) == pytest.approx(float(frechet.compute()), rel=1e-5)
    for rows, real in ((a, False), (b[:300], True)):
        kernel.update(images_of(rows).float(), real=real)
    assert kid(a, b[:300])[0] == pytest.approx(float(kernel.compute()[0]), rel=1e-3)


def test_kid_is_unbiased():
    same = [kid(normals(40, seed=2 * i), normals(60, seed=2 * i + 1))[0] for i in range(200)]
    spread = np.std(same) / len(same) ** 0.5
    assert abs(np.mean(same)) < 4 * spread
    assert min(same) < 0 < max(same)


def test_precision_and_recall_tell_missing_modes_from_wrong_ones():
    left, right = normals(200, shift=-20), normals(200, shift=20, seed=1)
    reals = torch.cat([left, right])
    halves = normals(200, shift=-20, seed=2)
    inside, reached = memberships(halves, reals)
    assert inside.double().mean() > 0.9, "what is drawn is right"
    assert reached[:200].double().mean() > 0.9
    assert not reached[200:].any(), "half of the reals are missed"
    elsewhere = torch.cat([halves[:100], normals(100, shift=60, seed=3)])
    inside, _ = memberships(elsewhere, reals)
    assert inside[:100].double().mean() > 0.9
    assert not inside[100:].any()


def test_scores_of_copies_and_of_chunks(monkeypatch):
    rows, other = normals(50), normals(70, seed=1)
    whole = scores(rows, other, resamples=20)
    monkeypatch.setattr(fidelity, "_CHUNK", 16)
    cut = scores(rows, other, resamples=20)
    assert cut.kid == pytest.approx(whole.kid, rel=1e-9)
    assert (cut.precision, cut.recall) == (whole.precision, whole.recall)
    assert (whole.num_samples, whole.num_reals, whole.num_features) == (50, 70, 4)
    copies = scores(rows, rows, resamples=0)
    assert (copies.precision, copies.recall, copies.intervals) == (1.0, 1.0, {})


def test_intervals_cover_as_often_as_they_say():
    """FID of two distributions that are 1 apart, from 400 fresh draws each time."""
    truth = fid(normals(100_000, shift=0.5, seed=100), normals(100_000, seed=101))
    assert truth == pytest.approx(1, abs=0.05)
    covered = 0
    for trial in range(40):
        a, b = normals(400, shift=0.5, seed=2 * trial), normals(400, seed=2 * trial + 1)
        low, high = interval(fid, a, b, fid(a, b), resamples=60, seed=trial)
        assert low < fid(a, b) < high < low + 1
        covered += low <= truth <= high
    assert covered >= 32


def test_a_score_has_a_floor():
    reals = normals(600)
    least = floor(reals, 200)
    assert (least.num_samples, least.num_reals) == (200, 400)
    assert least.fid < 0.2 < scores(normals(200, shift=1), reals, resamples=0).fid
    assert floor(reals, 10_000).num_samples == 300


def test_a_score_beside_its_floor_has_as_few_images():
    """FID of samples that are reals against all reals is half the floor, which has half of them; beside it, equal."""
    samples, reals = normals(600, 32, seed=1), normals(600, 32)
    least, as_few, all_of_them = floor(reals, 600), beside_floor(samples, reals), fid(samples, reals)
    assert (as_few.num_samples, as_few.num_reals) == (least.num_samples, least.num_reals) == (300, 300)
    assert all_of_them < 0.7 * least.fid
    assert as_few.fid == pytest.approx(least.fid, rel=0.1)


def test_too_few_images_are_refused_or_said():
    for reals in (normals(7), normals(7).repeat(9, 1), torch.ones(50, 8)):
        with pytest.raises(ValueError, match="got [71] different reals, and the floor is half .* give at least 8, and"):
            floor(reals, 50)
    with pytest.raises(ValueError, match="got 3 samples and 50 reals; give at least 4 of each"):
        scores(normals(3), normals(50))
    with pytest.raises(ValueError, match=r"features are \(5, 4\) and \(5, 3\)"):
        scores(normals(5), normals(5, 3))
    assert scores(normals(5), normals(50), resamples=0).doubt is None
    doubt = scores(normals(4), normals(50), resamples=0).doubt
    assert doubt.startswith("4 samples and 50 reals are too few for 4 features: with no more images than features")


def test_repeated_reals_have_neighbourhoods_all_the_same():
    """A set in which each picture lies four times has the precision and recall of the pictures once."""
    generator = torch.Generator().manual_seed(0)
    reals, samples = torch.randn(200, 8, generator=generator), torch.randn(150, 8, generator=generator)
    once, often = scores(samples, reals, resamples=0), scores(samples, reals.repeat(4, 1), resamples=0)
    assert floor(reals.repeat(4, 1), 50) == floor(reals, 50)
    assert (often.precision, often.recall) == (once.precision, once.recall)
    assert once.precision > 0.5
    rounded = reals.repeat(4, 1) * (1 + 1e-7 * torch.randn(800, 8, generator=generator))
    assert scores(samples, rounded, resamples=0).precision == pytest.approx(once.precision, abs=0.01)


def test_samples_of_one_picture_reach_nothing():
    reals = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert scores(torch.ones(20, 8), reals, resamples=0).recall == 0


def test_shares_that_are_hardly_known_are_told():
    generator = torch.Generator().manual_seed(0)
    few, many = (
        scores(torch.randn(n, 2, generator=generator), torch.randn(n, 2, generator=generator) + 1) for n in (12, 900)
    )
    assert "too few images to compare it" in few.doubt
    assert many.doubt is None


def test_every_score_tells_where_it_cannot_be_trusted():
    """Precision of 1 from five samples is not known to be 1, and a KID of equal sets is none."""
    reals = normals(50, seed=1) * 5
    few = scores(reals[:5], reals)
    assert few.precision == 1.0
    assert few.intervals["precision"][0] < 0.7
    assert {"kid", "precision"} <= set(few.doubts)
    equal = scores(normals(60), normals(60, seed=1))
    assert equal.doubts["kid"] == "kid cannot be told from 0 with so few images"
    assert "kid" not in scores(normals(60), normals(60, shift=3, seed=1)).doubts
