"""The classifier that learns from each condition."""

import numpy as np
import pytest
import torch

from fastddpm.draws import Stream
from fastddpm.studies.augmentation.learning import (
    Lesson,
    _order,
    accuracy,
    build_classifier,
    found_classes,
    learn,
    lesson_of,
)
from fastddpm.studies.augmentation.settings import GainClassic, GainClassifier
from tests.studies.augmentation.conftest import stripes

CPU = torch.device("cpu")
QUICK = GainClassifier(num_steps=60, batch_size=16, width=4, learning_rate=1e-2)


def lesson(count=60, seed=0) -> Lesson:
    images, labels = stripes(count, seed)
    return lesson_of(images[:, None], labels, 3)


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("classic", [None, GainClassic(shift=0.5, rotation=5.0, elastic=0.2)])
def test_it_learns_what_it_is_shown(classic):
    images, labels = stripes(90, seed=1)
    network = learn(lesson(), None, classic, QUICK, seed=0, device=CPU)
    assert accuracy(network, torch.from_numpy(images[:, None]), torch.from_numpy(labels), CPU) > 0.8


def test_it_is_the_same_each_time_and_the_seeds_own():
    before = torch.get_rng_state()
    first, again, other = (learn(lesson(), None, GainClassic(), QUICK, seed=s, device=CPU) for s in (0, 0, 1))
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))
    assert torch.equal(torch.get_rng_state(), before), "the caller's random state is left alone"


def test_every_image_is_seen_as_often_as_the_others():
    order = _order(7, 10, 5, 0, Stream.SAMPLE_ORDER)
    assert order.shape == (10, 5)
    assert {tuple(sorted(epoch)) for epoch in order.flatten()[:49].reshape(7, 7).tolist()} == {tuple(range(7))}
    assert set(np.bincount(order.flatten())) <= {7, 8}


def test_drawn_images_have_their_share_of_a_batch_however_many_they_are():
    """Reals are dark and of class 0, drawn ones light and of class 1: with few of them in a batch, a light image is
    still told, because it is seen; and how many there are to choose from changes nothing."""
    dark, light = torch.full((20, 1, 8, 8), 20, dtype=torch.uint8), torch.full((40, 1, 8, 8), 220, dtype=torch.uint8)
    reals = Lesson(dark, torch.eye(2)[torch.zeros(20, dtype=torch.int64)])
    found = []
    for count in (10, 40):
        drawn = Lesson(light[:count], torch.eye(2)[torch.ones(count, dtype=torch.int64)])
        network = learn(reals, drawn, None, QUICK, seed=0, device=CPU)
        assert found_classes(network, torch.cat([dark[:1], light[:1]]), CPU).tolist() == [0, 1]
        found.append(weights(network))
    assert torch.equal(*found)


def test_soft_labels_are_learnt_as_shares():
    images, _ = stripes(20)
    half = Lesson(torch.from_numpy(images[:, None]), torch.tensor([[0.7, 0.3]]).expand(20, 2))
    network = learn(half, half, None, QUICK, seed=0, device=CPU)
    likely = network(half.images.float() / 127.5 - 1).softmax(1).mean(0)
    assert likely.detach().numpy() == pytest.approx([0.7, 0.3], abs=0.1)


def test_it_takes_images_of_other_sizes():
    for shape in ((1, 28, 28), (3, 64, 48), (1, 8, 8)):
        assert build_classifier(shape[0], 5, 4)(torch.zeros(2, *shape)).shape == (2, 5)
