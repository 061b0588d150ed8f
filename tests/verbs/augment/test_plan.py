"""Which images a request means: numbers alone, no model."""

from pathlib import Path

import numpy as np
import pytest

from fastddpm.verbs.augment.plan import make_plan
from fastddpm.verbs.augment.request import AugmentRequest

LABELS = np.array([0, 0, 0, 0, 0, 1, 1, 2])


def plan(labels=LABELS, **options):
    request = AugmentRequest(model="m", data="d", out=Path("o"), **options)
    return make_plan(request, labels, (28, 28))


def test_starts_are_read():
    def starts(asked):
        return AugmentRequest(model="m", data="d", out="o", start_timesteps=asked).starts

    assert starts([100, 300]) == (100, 300)
    assert list(starts("100:103")) == [100, 101, 102, 103]
    with pytest.raises(ValueError, match="start_timesteps is 1:2:3; wanted .*, such as 100 300, or a range, such as"):
        starts("1:2:3")


def test_each_image_gets_as_many_of_each_start():
    made = plan(start_timesteps=(300, 100), num_images=3)
    assert len(made) == 48
    assert made.starts.tolist() == [100] * 24 + [300] * 24
    for start in (100, 300):
        assert np.array_equal(np.bincount(made.sources[made.starts == start]), [3] * 8)
    assert np.array_equal(np.sort(made.seeds), np.arange(48))


def test_starts_of_a_range_are_even_and_keyed():
    made = plan(np.zeros(4000, dtype=np.int64), start_timesteps="100:103")
    counts = np.bincount(made.starts)[100:]
    assert len(counts) == 4
    assert counts.min() > 900
    assert (np.diff(made.starts) >= 0).all(), "a micro-batch holds near ones"
    some = plan(np.zeros(10, dtype=np.int64), start_timesteps="100:103")
    start_of = dict(zip(made.seeds.tolist(), made.starts.tolist(), strict=True))
    assert all(start_of[seed] == start for seed, start in zip(some.seeds.tolist(), some.starts.tolist(), strict=True))


def test_seeds_decide_everything():
    options = {"mode": "cutmix", "start_timesteps": "1:999", "num_images": 4, "balance": True}
    first, again, other = plan(**options), plan(**options), plan(**options, seed=1000)
    for name in ("seeds", "sources", "partners", "boxes", "starts"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name)), name


def test_partners_are_other_images_each_as_likely():
    made = plan(mode="cutmix", num_images=2000)
    assert (made.partners != made.sources).all()
    pairs = np.zeros((8, 8), dtype=int)
    np.add.at(pairs, (made.sources, made.partners), 1)
    others = pairs[~np.eye(8, dtype=bool)]
    assert others.min() > 220
    assert others.max() < 360


def test_balanced_classes_use_their_images_in_turn():
    made = plan(balance=True, num_images=3)
    assert np.bincount(LABELS[made.sources]).tolist() == [15, 15, 15]
    assert np.bincount(made.sources).tolist() == [3] * 5 + [8, 7] or np.bincount(made.sources)[5:7].sum() == 15
    assert abs(int(np.bincount(made.sources)[5]) - int(np.bincount(made.sources)[6])) == 1
    assert np.bincount(made.sources)[7] == 15


def test_a_class_without_images_stays_without():
    assert np.unique(plan(np.array([0, 0, 4]), balance=True).sources).tolist() == [0, 1, 2]
