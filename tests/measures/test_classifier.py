"""A classifier of the user's own labelled images: what it learns, what it refuses, how it is kept."""

import numpy as np
import pytest
import torch

from fastddpm.measures.classifier import NUM_FEATURES, Classifier, train_classifier


def bars(count, seed=0, shape=(1, 16, 16)):
    """Upright and level bars at random places, in noise: images and labels."""
    rng = np.random.default_rng(seed)
    labels = torch.arange(count) % 2
    images = torch.from_numpy(rng.integers(0, 120, (count, *shape), dtype=np.uint8))
    for image, label, place in zip(images, labels, rng.integers(2, shape[1] - 2, count), strict=True):
        if label:
            image[:, place] = 255
        else:
            image[:, :, place] = 255
    return images, labels


@pytest.fixture(scope="module")
def trained():
    return train_classifier(*bars(256), 2, epochs=6, batch_size=16, show_progress=False)


def test_it_learns_what_it_is_shown(trained):
    assert trained.accuracy(*bars(64, seed=1)) > 0.95
    untrained = Classifier((1, 16, 16), 2).eval()
    assert untrained.accuracy(*bars(64, seed=1)) < 0.8
    images, labels = bars(64, seed=2)
    features = trained.features(images)
    assert features.shape == (64, NUM_FEATURES)
    apart = (features[labels == 0].mean(0) - features[labels == 1].mean(0)).norm()
    assert apart > 2 * features[labels == 0].std(0).norm()
    assert torch.allclose(trained.probabilities(images).sum(1), torch.ones(64))


def test_training_is_the_same_each_time_and_leaves_the_random_state_alone(trained):
    before = torch.random.get_rng_state()
    again = train_classifier(*bars(256), 2, epochs=6, batch_size=16, show_progress=False)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert again.sha256() == trained.sha256()
    other = train_classifier(*bars(256), 2, epochs=6, batch_size=16, seed=1, show_progress=False)
    assert other.sha256() != trained.sha256()


def test_it_says_what_it_is(trained):
    assert trained.facts == {"num_images": 256, "epochs": 6, "batch_size": 16, "seed": 0}
    assert trained.description == "128 features of a classifier of 2 classes trained on 256 images"


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (1, 33, 64), (3, 128, 128)])
def test_any_size_of_images(shape):
    made = Classifier(shape, 3).eval()
    assert made.features(torch.zeros(2, *shape, dtype=torch.uint8)).shape == (2, NUM_FEATURES)


def test_what_does_not_fit_is_refused(trained):
    images, labels = bars(8)
    with pytest.raises(ValueError, match=r"got \(1, 8, 8\) images of torch.uint8; the judge takes \(1, 16, 16\)"):
        trained.features(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="images of torch.float32"):
        trained.features(images.float())
    for wrong in (labels[:3], labels + 5, labels - 1):
        with pytest.raises(ValueError, match="wanted a label of 0 to 1 for each of at least one image"):
            train_classifier(images, wrong, 2)
