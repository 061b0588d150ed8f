"""The rule of copies on images alone: no model is in it."""

import math

import pytest
import torch

from fastddpm.measures.nearest import TrainingImages, exchangeable_chance


def draw(count: int, seed: int) -> torch.Tensor:
    """Fresh 8x8 images of one distribution: smooth blobs and noise, (count, 1, 8, 8), uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 3, 3, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=8, mode="bilinear") * 200
    return (smooth + torch.rand(count, 1, 8, 8, generator=generator) * 40).to(torch.uint8)


def judge(train, samples, held_out=None, **options):
    images = TrainingImages(lambda ids: train[ids], torch.arange(len(train)), held_out, **options)
    return images.judge(samples), images


def near(images, seed=9, levels=4):
    noise = torch.randint(-levels, levels + 1, images.shape, generator=torch.Generator().manual_seed(seed))
    return (images.int() + noise).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("with_held_out", [True, False])
@pytest.mark.parametrize("num_train", [12, 300])
def test_copies_and_near_copies_are_found(num_train, with_held_out):
    train, held_out = draw(num_train, 0), draw(40, 1) if with_held_out else None
    some = torch.arange(64) % num_train
    for samples in (train[some], near(train[some])):
        verdict, _ = judge(train, samples, held_out)
        assert verdict.kind == "copies"
        assert verdict.num_close > 50
        assert verdict.samples.ids.tolist() == some.tolist()


@pytest.mark.parametrize("with_held_out", [True, False])
@pytest.mark.parametrize("num_train", [12, 300])
def test_fresh_images_are_no_copies_whatever_the_draw(num_train, with_held_out):
    for seed in range(20):
        train = draw(num_train, 3 * seed)
        verdict, _ = judge(train, draw(64, 3 * seed + 1), draw(40, 3 * seed + 2) if with_held_out else None)
        assert verdict.kind == "no copies", seed


def test_a_quarter_of_copies_is_enough_for_a_warning():
    train, fresh = draw(300, 0), draw(64, 1)
    verdict, _ = judge(train, torch.cat([near(train[:16]), fresh[:48]]), draw(100, 2))
    assert verdict.kind == "copies"
    assert verdict.num_close >= 16


def test_grey_samples_of_an_untrained_model_are_no_copies():
    train = draw(300, 0)
    blurred = train[:64].float().mean((2, 3), keepdim=True).expand(-1, -1, 8, 8).to(torch.uint8)
    verdict, _ = judge(train, blurred, draw(100, 2))
    assert (verdict.kind, verdict.unlike) == ("cannot tell", "smoother"), "nearer to some than held-out ones are"


def test_duplicates_in_the_set_neither_hide_copies_nor_pass_for_them():
    once = draw(100, 0)
    train = once.repeat(3, 1, 1, 1)
    copies, images = judge(train, near(once[:32]))
    assert (copies.kind, len(images), images.num_duplicates) == ("copies", 100, 200)
    assert judge(train, draw(32, 1))[0].kind == "no copies"


def test_held_out_images_that_are_trained_on_are_left_out():
    train = draw(100, 0)
    verdict, _ = judge(train, near(train[:32]), torch.cat([train[:20], draw(20, 1)]))
    assert (verdict.kind, verdict.num_reals) == ("copies", 20)


@pytest.mark.parametrize(("num_train", "held_out"), [(1, None), (2, None), (2, 40), (100, 0)])
def test_too_few_images_cannot_tell(num_train, held_out):
    train = draw(num_train, 0)
    verdict, _ = judge(train, train[torch.zeros(8, dtype=torch.int64)], None if held_out is None else draw(held_out, 1))
    assert verdict.kind == "cannot tell"
    assert verdict.samples.distances.abs().max() == 0


@pytest.mark.parametrize("flips", [(-1,), (-2,), (-1, -2)])
def test_mirrored_copies_count_when_training_mirrors(flips):
    train = draw(100, 0)
    copies = near(train[:32].flip(flips))
    assert judge(train, copies, draw(40, 1), flips=flips)[0].kind == "copies"
    assert judge(train, copies, draw(40, 1))[0].kind == "no copies"


def test_neighbours_are_those_of_a_plain_search_over_chunks():
    train, queries = draw(2500, 0), draw(7, 1)
    _, images = judge(train, queries)
    found = images.neighbours(queries)
    distances = torch.cdist(queries.flatten(1).double(), train.flatten(1).double()) / 8  # root of 64 pixels
    nearest = distances.sort(dim=1).values
    assert found.ids.tolist() == distances.argmin(1).tolist()
    torch.testing.assert_close(found.distances.double(), nearest[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.closeness.double(), nearest[:, 0] / nearest[:, :50].mean(1), rtol=1e-4, atol=0)


def test_chance_is_that_of_all_orders():
    """Of 3 samples and 4 reals in every order: at least 2 samples below the second smallest real."""
    import itertools

    orders = list(itertools.combinations(range(7), 3))
    hits = 0
    for samples in orders:
        reals = sorted(set(range(7)) - set(samples))
        hits += sum(place < reals[1] for place in samples) >= 2
    assert exchangeable_chance(2, 3, 4, 2) == pytest.approx(hits / len(orders))
    assert exchangeable_chance(0, 3, 4, 2) == 1.0
    assert exchangeable_chance(64, 64, 15, 1) == pytest.approx(1 / math.comb(79, 15))


@pytest.mark.parametrize("with_held_out", [True, False])
def test_images_that_are_there_mirrored_too_do_not_hide_copies(with_held_out):
    """Where training mirrors, a mirrored image is the same one: it is no real that says how near is ordinary."""
    once = draw(100, 0)
    train = torch.cat([once, once.flip(-1)])
    held_out = torch.cat([draw(40, 1), once[:40].flip(-1)]) if with_held_out else None
    verdict, images = judge(train, once[:64], held_out, flips=(-1,))
    assert (verdict.kind, verdict.num_close) == ("copies", 64)
    assert (len(images), images.num_duplicates) == (100, 100)
    assert verdict.num_reals == (40 if with_held_out else 100)
    assert judge(train, draw(64, 2), held_out, flips=(-1,))[0].kind == "no copies"
