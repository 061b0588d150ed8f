"""A network that learns features without labels: what they see, and what it refuses."""

import numpy as np
import pytest
import torch

from fastddpm.measures.fidelity import fid
from fastddpm.measures.unlabelled_judge import NUM_FEATURES, UnlabelledFeatures, contrast, moved, train_unlabelled, turn


def corners(count, seed=0, shape=(3, 16, 16)):
    """A rectangle of its own size and brightness on white, in the upper left part: (N, C, H, W) uint8."""
    rng = np.random.default_rng(seed)
    images = np.full((count, *shape), 255, np.uint8)
    for image in images:
        height, width = rng.integers(4, 10, 2)
        top, left = rng.integers(0, 3, 2)
        image[:, top : top + height, left : left + width] = rng.integers(0, 200, (shape[0], 1, 1))
    return torch.from_numpy(images)


def noisy(images, sigma):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)) * sigma
    return (images + noise).round().clamp(0, 255).to(torch.uint8)


def train(images, **options):
    return train_unlabelled(images, **{"num_steps": 40, "batch_size": 64, "show_progress": False, **options})


@pytest.fixture(scope="module")
def trained():
    return train(corners(128))


def share_of_turns_told(network):
    """By the nearest class mean of other images; one in four by chance."""
    known, asked = ([turn(corners(64, seed), torch.full((64,), k)) for k in range(4)] for seed in (1, 2))
    means = torch.stack([network.features(images).mean(0) for images in known])
    right = [torch.cdist(network.features(images), means).argmin(1) == k for k, images in enumerate(asked)]
    return torch.cat(right).double().mean().item()


def share_of_twins_found(network):
    """Of two views of each of 64 images, nearest to each other in features; one in 64 by chance."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one, other = (network.features(moved(corners(64, seed=4)).round().to(torch.uint8)) for _ in range(2))
    return (torch.cdist(one, other).argmin(1) == torch.arange(64)).double().mean().item()


def test_it_learns_to_tell_images_and_their_turns_apart(trained):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = UnlabelledFeatures((3, 16, 16)).eval()
    assert share_of_twins_found(trained) > 1.5 * share_of_twins_found(untrained)
    assert share_of_turns_told(trained) > 0.9


def test_more_noise_is_farther_away(trained):
    reference, reals = trained.features(corners(300, seed=5)), corners(300, seed=6)
    plain, mild, middling, strong = (fid(trained.features(noisy(reals, sigma)), reference) for sigma in (0, 20, 40, 80))
    assert plain < mild < middling < strong
    assert strong > 4 * plain


def test_training_is_the_same_each_time_and_leaves_the_random_state_alone():
    images, before = corners(32), torch.random.get_rng_state()
    one, again = (train(images, num_steps=3, seed=seed) for seed in (0, 0))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert one.sha256() == again.sha256() == train(images, num_steps=3).sha256()
    assert one.sha256() != train(images, num_steps=3, seed=1).sha256()


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 28, 28), (1, 33, 20)])
def test_any_size_and_grayscale_or_colour(shape):
    made = train(corners(9, shape=shape), num_steps=2)
    assert made.facts == {"num_images": 9, "num_steps": 2, "batch_size": 9, "seed": 0}
    features = made.features(corners(5, shape=shape))
    assert features.shape == (5, NUM_FEATURES)
    assert features.dtype == torch.float32
    assert not made.training
    assert torch.equal(made(corners(5, shape=shape)).detach(), features)


def test_it_says_what_it_is(trained):
    assert trained.description == "64 features of a small network trained without labels on 128 images"
    assert UnlabelledFeatures((1, 16, 16)).description == "64 features of a small network not trained"


def test_what_does_not_fit_is_refused(trained):
    with pytest.raises(ValueError, match=r"got \(7, 3, 16, 16\) of torch.uint8; to learn .* takes at least 8 images"):
        train(corners(7))
    with pytest.raises(ValueError, match=r"got \(9, 3, 16, 16\) of torch.float32; .* uint8"):
        train(corners(9).float())
    with pytest.raises(ValueError, match="got images of 15x16 pixels; .* takes sides of at least 16: make them larger"):
        train(corners(9, shape=(3, 15, 16)))
    with pytest.raises(ValueError, match=r"got \(1, 16, 16\) images of torch.uint8; the judge takes \(3, 16, 16\)"):
        trained.features(corners(2, shape=(1, 16, 16)))


def test_contrast_is_least_when_every_view_finds_its_twin():
    views = torch.eye(4)
    right, wrong = (contrast(views, other) for other in (views, views.roll(1, 0)))
    assert right < wrong


def test_a_turn_is_of_the_middle_square():
    image = torch.arange(6).reshape(1, 1, 2, 3)
    # .. 0 1 2        of 3 columns the middle square begins at the first
    # .. 3 4 5
    for quarters, expected in enumerate(([[0, 1], [3, 4]], [[1, 4], [0, 3]], [[4, 3], [1, 0]], [[3, 0], [4, 1]])):
        assert turn(image, torch.tensor([quarters]))[0, 0].tolist() == expected


def test_moved_images_keep_their_place_within_an_eighth_and_a_quarter():
    dots = torch.zeros(50, 1, 32, 32)
    dots[:, :, 15:17, 15:17] = 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        places = moved(dots).flatten(1).argmax(1)
    rows, columns = places // 32, places % 32
    for found in (rows, columns):
        assert found.min() >= 15 - 32 // 8 * 1.25 - 1
        assert found.max() <= 16 + 32 // 8 * 1.25 + 1
        assert len(found.unique()) > 4
