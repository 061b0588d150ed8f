import collections
import math

import pytest
import torch

from fastddpm import draws
from fastddpm.draws import Stream
from fastddpm.kernels import philox


def test_noise_of_an_image_depends_on_its_position_only():
    positions = torch.tensor([3, 2**33, 3, 8])
    batch = draws.normal(positions, (3, 5, 7), seed=1, stream=Stream.TRAIN_NOISE)
    assert batch.shape == (4, 3, 5, 7)
    assert torch.equal(batch[0], batch[2])
    assert not torch.equal(batch[0], batch[1])
    assert torch.equal(draws.normal(positions[1:2], (3, 5, 7), seed=1, stream=Stream.TRAIN_NOISE)[0], batch[1])


def test_elements_follow_logical_order():
    image = draws.normal(torch.tensor([3]), (3, 5, 7), seed=1, stream=Stream.TRAIN_NOISE)
    flat = draws.normal(torch.tensor([3]), (105,), seed=1, stream=Stream.TRAIN_NOISE)
    assert torch.equal(image.flatten(), flat.flatten())


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 64, 65, 1000])
def test_shuffled_is_a_bijection(size):
    for epoch in (0, 1, 2**40):
        values = draws.shuffled(torch.arange(size), size, seed=5, epoch=epoch, stream=Stream.SAMPLE_ORDER)
        assert sorted(values.tolist()) == list(range(size))


def test_shuffled_reaches_every_order_equally_often():
    trials = 960
    counts = collections.Counter(
        tuple(draws.shuffled(torch.arange(4), 4, seed=0, epoch=e, stream=Stream.SAMPLE_ORDER).tolist())
        for e in range(trials)
    )
    expected = trials / 24
    chi_square = sum((counts[order] - expected) ** 2 / expected for order in counts)
    assert len(counts) == 24
    assert chi_square < 49.7  # the 0.1 % point of chi-square with 23 degrees of freedom


def test_order_of_seed_and_epoch_do_not_mix():
    """seed 5, epoch 1 is not seed 6, epoch 0."""
    one = draws.shuffled(torch.arange(100), 100, seed=5, epoch=1, stream=Stream.SAMPLE_ORDER)
    other = draws.shuffled(torch.arange(100), 100, seed=6, epoch=0, stream=Stream.SAMPLE_ORDER)
    assert not torch.equal(one, other)


def test_every_epoch_shows_every_image_once_across_batches():
    ids = torch.cat([draws.sample_ids(torch.arange(f, f + 7), 10, seed=0) for f in range(0, 70, 7)])
    epochs = ids.reshape(7, 10)
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > 1


def test_sample_ids_of_a_micro_batch_are_those_of_the_batch():
    whole = draws.sample_ids(torch.arange(64), 45, seed=3)
    parts = [draws.sample_ids(torch.arange(f, f + 16), 45, seed=3) for f in range(0, 64, 16)]
    assert torch.equal(whole, torch.cat(parts))


def test_uniform_covers_the_interval_evenly():
    u = draws.uniform(torch.arange(100_000), seed=0, stream=Stream.TIMESTEP)
    counts = torch.bincount((u * 10).long(), minlength=10).double()
    assert len(counts) == 10
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 27.9  # 0.1 % point, 9 degrees of freedom


def stratified(positions, batch_size, seed=0):
    return draws.stratified(positions, batch_size=batch_size, seed=seed, stream=Stream.TIMESTEP)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64, 100])
def test_stratified_puts_one_image_in_each_stratum(batch_size):
    for step in (0, 1, 12345):
        u = stratified(torch.arange(step * batch_size, (step + 1) * batch_size), batch_size)
        assert sorted((u * batch_size).long().tolist()) == list(range(batch_size))


def test_stratified_is_uniform_for_each_slot():
    u = stratified(torch.arange(20_000) * 8 + 3, 8)  # always slot 3 of batches of 8
    counts = torch.bincount((u * 10).long(), minlength=10).double()
    assert ((counts - 2000) ** 2 / 2000).sum() < 27.9


def test_stratified_micro_batch_spans_the_interval():
    assert len(set((stratified(torch.arange(64, 80), 64) * 4).long().tolist())) == 4


def test_stratified_does_not_depend_on_the_part_asked_for():
    whole, part = stratified(torch.arange(640, 704), 64, seed=1), stratified(torch.arange(650, 660), 64, seed=1)
    assert torch.equal(whole[10:20], part)


def test_coins_fall_with_their_probability():
    heads = draws.coins(torch.arange(40_000), 0.1, seed=0, stream=Stream.LABEL_DROP).double().mean()
    assert abs(heads - 0.1) < 5 * math.sqrt(0.09 / 40_000)
    assert not draws.coins(torch.arange(100), 0.0, seed=0, stream=Stream.LABEL_DROP).any()


def test_layout_1_is_frozen():
    """What makes a run and a picture what they are: a change here wants another LAYOUT_VERSION."""
    places = torch.tensor([0, 1, 2**33 + 5])
    assert philox.LAYOUT_VERSION == 1
    assert {stream.name: int(stream) for stream in Stream} == {
        "TRAIN_NOISE": 0, "TIMESTEP": 1, "LABEL_DROP": 2, "FLIP": 3, "SAMPLE_ORDER": 4, "SPLIT": 5,
        "INITIAL_NOISE": 6, "STEP_NOISE": 7, "EVALUATION": 8, "LABEL": 9, "CROP": 10, "CHOICE": 11, "BOX": 12,
        "LATENT": 13, "START": 14,
    }  # fmt: skip
    assert draws.sample_ids(torch.arange(98, 104), 100, seed=7).tolist() == [75, 29, 54, 79, 38, 74]
    uniform = draws.uniform(places, seed=7, stream=Stream.TIMESTEP)
    assert (uniform * 1000).long().tolist() == [118, 550, 738]
    stratified = draws.stratified(torch.arange(8, 12), batch_size=4, seed=7, stream=Stream.TIMESTEP)
    assert (stratified * 1000).long().tolist() == [355, 248, 769, 662]
    flips = draws.coins(torch.arange(12), 0.5, seed=7, stream=Stream.FLIP)
    assert flips.int().tolist() == [1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0]
    dropped = draws.coins(torch.arange(12), 0.1, seed=7, stream=Stream.LABEL_DROP)
    assert dropped.nonzero()[:, 0].tolist() == [2, 6]
    assert draws.integers(places, 29, seed=7, stream=Stream.CROP).tolist() == [22, 11, 14]
    noise = {
        (Stream.TRAIN_NOISE, 0): [1.147888422, 1.443000436, 0.483404428, -0.413780272],
        (Stream.INITIAL_NOISE, 0): [1.298399091, -0.87941581, -1.986443639, 2.546292782],
        (Stream.STEP_NOISE, 500): [-0.425011843, 0.918075979, 0.383429796, 0.288452804],
    }
    for (stream, draw), expected in noise.items():
        found = draws.normal(places[1:], (1, 1, 2), seed=7, stream=stream, draw=draw)
        assert torch.allclose(found.flatten(), torch.tensor(expected), rtol=4 * torch.finfo(torch.float32).eps, atol=0)
