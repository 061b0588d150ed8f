"""How alike images are: known answers, and what must be told apart."""

import numpy as np
import pytest
import torch

from fastddpm.measures.similarity import (
    among_siblings,
    elsewhere,
    estimate,
    further_share,
    part_distances,
    relation,
    spearman,
    ssim,
    steps_across,
    to_inputs,
)

BOOTSTRAP = {"resamples": 100, "seed": 0}


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_the_distance_to_an_input_is_told_from_that_of_random_pairs():
    inputs = normal(60, 8)
    copies = inputs[:, None].repeat(1, 3, 1)
    near, unrelated = copies + 0.1 * normal(60, 3, 8, seed=1), normal(60, 3, 8, seed=2)
    same, close, far = (to_inputs(inputs, results, **BOOTSTRAP) for results in (copies, near, unrelated))
    assert same.own == 0 == same.ratio.value
    assert 0 < close.ratio.low < close.ratio.value < close.ratio.high < 0.2
    assert far.ratio.low < 1 < far.ratio.high
    assert far.ratio.high - far.ratio.low < 0.2


def test_own_and_random_are_means_over_pairs_counted_by_hand():
    inputs, results = torch.tensor([[0.0], [10.0]]), torch.tensor([[[1.0], [2.0]], [[10.0], [13.0]]])
    found = to_inputs(inputs, results, resamples=0, seed=0)
    assert found.own == pytest.approx((1 + 2 + 0 + 3) / 4)
    assert found.random == pytest.approx((10 + 13 + 9 + 8) / 4)
    assert found.ratio.row() == [found.own / found.random] * 3


def test_siblings_are_not_compared_with_themselves():
    results = torch.tensor([[[0.0], [1.0]], [[5.0], [8.0]]])
    found = among_siblings(results, resamples=0, seed=0)
    assert found.own == pytest.approx((1 + 3) / 2)
    assert found.random == pytest.approx((5 + 8 + 4 + 7) / 4)


def test_the_interval_covers_one_as_often_as_it_says_and_is_as_wide_as_it_must_be():
    """Unrelated images of very different spread, which a bootstrap over rows alone would take for ignorance."""
    rng, widths, values, covered = np.random.default_rng(0), [], [], 0
    for trial in range(60):
        inputs, results = rng.normal(size=(32, 8)), rng.normal(size=(32, 1, 8))
        scales = np.exp(rng.normal(0, 0.4, (2, 32, 1)))
        found = to_inputs(
            torch.from_numpy(inputs * scales[0]),
            torch.from_numpy(results * scales[1][:, None]),
            resamples=100,
            seed=trial,
        )
        widths.append(found.ratio.high - found.ratio.low)
        values.append(found.ratio.value)
        covered += found.ratio.low <= 1 <= found.ratio.high
    assert covered >= 52  # of 60, of which 57 are wanted
    true_width = 2 * 1.96 * np.std(values)
    assert 0.75 * true_width < np.mean(widths) < 1.4 * true_width


def test_each_group_has_its_own_distance():
    found = relation(np.array([[1.0, 9.0], [8.0, 4.0]]), resamples=0, seed=0)
    assert (found.own, found.random) == (2.5, 8.5)
    assert found.of_each.tolist() == [1.0, 4.0]


def test_an_interval_narrows_with_more_things_and_is_the_same_each_time():
    values = np.random.default_rng(3).normal(5, 1, 400)

    def interval(count):
        return estimate(lambda places: float(values[places].mean()), count, **BOOTSTRAP)

    few, many = interval(25), interval(400)
    assert few.low < 5 < few.high
    assert many.high - many.low < (few.high - few.low) / 2
    assert interval(400) == many


def test_ssim_of_equal_noisy_and_other_images():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (3, 1, 16, 16), dtype=np.uint8))
    noisy = (images.float() + torch.from_numpy(rng.normal(0, 20, images.shape))).clamp(0, 255).byte()
    same, close, other = ssim(images, images), ssim(images, noisy), ssim(images, images.roll(1, 0))
    assert same.shape == (3,)
    assert torch.allclose(same, torch.ones(3, dtype=same.dtype), atol=1e-5)
    assert bool((close < same).all() and (other < close).all())


def test_ssim_is_that_of_torchmetrics():
    from torchmetrics.functional.image import structural_similarity_index_measure

    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 4, 3, 20, 17), dtype=np.uint8))
    wanted = structural_similarity_index_measure(*images.double(), data_range=255.0, reduction="none")
    assert torch.allclose(ssim(*images), wanted, atol=1e-9)


@pytest.mark.parametrize(
    ("y", "wanted"),
    [([1, 2, 3, 9], 1.0), ([4, 3, 2, 1], -1.0), ([5, 5, 5, 5], 0.0), ([2, 1, 4, 3], 0.6), ([1, 1, 2, 2], 4 / 20**0.5)],
)
def test_spearman_has_the_known_values(y, wanted):
    assert spearman(np.arange(4), np.array(y, dtype=float)) == pytest.approx(wanted)


def test_a_step_across_a_seam_is_the_difference_of_its_two_sides():
    images = torch.zeros(2, 3, 4, 6, dtype=torch.uint8)
    images[0, ..., 3:] = 90  # a hard edge at the seam
    images[1, ..., 5:] = 90  # elsewhere
    mask = torch.zeros(2, 1, 4, 6, dtype=torch.bool)
    mask[..., 3:] = True
    assert steps_across(images, mask).tolist() == [90.0, 0.0]


def test_steps_elsewhere_do_not_see_the_seam():
    image, mask = torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    image[..., 2:] = 200
    mask[..., 2:] = True
    assert elsewhere(image, mask).tolist() == [0.0]
    image[..., 3, :] += 20  # of 20 other pairs, four of neighbours in a column
    assert elsewhere(image, mask).tolist() == [4.0]


def test_a_box_has_seams_on_all_its_sides():
    image, mask = torch.zeros(1, 1, 5, 5, dtype=torch.uint8), torch.zeros(1, 1, 5, 5, dtype=torch.bool)
    mask[..., 2:3, 2:3] = True
    image[..., 2, 3] = 40  # right of the box: one of its four neighbours
    assert steps_across(image, mask).tolist() == [10.0]


def test_a_part_is_nearest_to_its_own_source():
    rng = np.random.default_rng(0)
    sources = torch.from_numpy(rng.integers(0, 256, (20, 1, 4, 4), dtype=np.uint8))
    left = torch.zeros(20, 1, 4, 4, dtype=torch.bool)
    left[..., :2] = True
    parts = sources.clone()
    parts[..., 2:] = 255 - parts[..., 2:]  # outside of the part: not looked at
    distances = part_distances(parts, sources, left)
    assert distances.diagonal().tolist() == [0.0] * 20
    assert further_share(distances).tolist() == [1.0] * 20
    shuffled = further_share(part_distances(sources.roll(1, 0), sources, left))
    assert 0.2 < float(shuffled.mean()) < 0.8


def test_the_distance_of_a_part_is_a_root_mean_square_over_that_part():
    parts, sources = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.full((2, 3, 4, 4), 30, dtype=torch.uint8)
    sources[1, :, :, :2] = 40
    left = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    left[..., :2] = True
    assert part_distances(parts, sources, left).tolist() == [[30.0, 40.0], [30.0, 40.0]]
