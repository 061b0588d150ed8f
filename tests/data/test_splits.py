"""Held-out and training images, and batches of them."""

import numpy as np
import pytest
import torch

from fastddpm.config import DataConfig
from fastddpm.data import DeviceImages, ImageSet, Subset, load_splits


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def digits(cache_dir, seed=0, **options):
    return load_splits(DataConfig(cache_dir=cache_dir, **options), seed=seed, show_progress=False)


def test_digits_are_whole_and_no_image_is_in_both_parts(cache_dir):
    splits = digits(cache_dir, num_held_out=500)
    assert splits.train.image_shape == (1, 28, 28)
    assert splits.train.num_classes == 10
    both = np.concatenate([splits.train.indices, splits.held_out.indices])
    assert sorted(both.tolist()) == list(range(5000))
    assert len(splits.held_out) == 500


def test_the_source_is_sorted_by_class_but_the_parts_are_not(cache_dir):
    splits = digits(cache_dir, num_held_out=500)
    assert (np.diff(splits.train.source.labels) >= 0).all()
    for part in (splits.train, splits.held_out):
        counts = np.bincount(part.labels[:200], minlength=10)
        assert counts.min() >= 5  # 20 expected; P(any below 5) < 1e-3, and the order is a constant


def test_another_num_images_keeps_the_held_out_images(cache_dir):
    small, large = (digits(cache_dir, num_held_out=100, num_images=n) for n in (50, 1000))
    np.testing.assert_array_equal(small.held_out.indices, large.held_out.indices)
    np.testing.assert_array_equal(small.train.indices, large.train.indices[:50])
    assert small.fingerprint != large.fingerprint


def test_the_seed_decides(cache_dir):
    one, again, other = (digits(cache_dir, seed=seed, num_images=100) for seed in (1, 1, 2))
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert set(one.train.indices) != set(other.train.indices)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_images": 4000, "num_held_out": 1001}, "holds 5000 images, wanted 1001 held out and 4000 for training"),
        ({"num_held_out": 5000}, "wanted 5000 held out and at least 1 for training; lower --data.num_held_out"),
    ],
)
def test_too_few_images_are_refused_with_their_number(cache_dir, options, expected):
    with pytest.raises(ValueError, match=expected):
        digits(cache_dir, **options)


def some_images(labels=True) -> Subset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 3, 5, 4), dtype=np.uint8)
    source = ImageSet(images, np.arange(20) if labels else None, tuple("abcdefghijklmnopqrst") if labels else None, "")
    return Subset(source, rng.permutation(20)[:12])


@pytest.mark.parametrize("resident_bytes", [0, 2**20])
@pytest.mark.parametrize("labels", [True, False])
def test_gather_gives_the_images_of_the_subset(resident_bytes, labels):
    subset = some_images(labels)
    images = DeviceImages(subset, torch.device("cpu"), resident_bytes=resident_bytes)
    assert images.is_resident == (resident_bytes > 0)
    ids = torch.tensor([3, 0, 11, 3])
    batch, batch_labels = images.gather(ids)
    assert batch.dtype == torch.uint8
    np.testing.assert_array_equal(batch.numpy(), np.stack([subset.image(i) for i in ids.tolist()]))
    if labels:
        assert batch_labels.dtype == torch.int64
        np.testing.assert_array_equal(batch_labels.numpy(), subset.labels[ids.numpy()])
    else:
        assert batch_labels is None


@pytest.mark.parametrize("resident_bytes", [0, 2**20])
@pytest.mark.parametrize("wrong", [12, -1])
def test_gather_refuses_ids_out_of_range(resident_bytes, wrong):
    images = DeviceImages(some_images(labels=False), torch.device("cpu"), resident_bytes=resident_bytes)
    with pytest.raises(IndexError):
        images.gather(torch.tensor([0, wrong]))


def test_the_limit_counts_the_subset_and_not_the_source():
    subset = some_images()
    assert DeviceImages(subset, torch.device("cpu"), resident_bytes=12 * 60).is_resident
    assert not DeviceImages(subset, torch.device("cpu"), resident_bytes=12 * 60 - 1).is_resident


def test_an_epoch_shows_every_image_once():
    images = DeviceImages(some_images(), torch.device("cpu"))
    ids = images.sample_ids(torch.arange(24), seed=3)
    assert sorted(ids[:12].tolist()) == sorted(ids[12:].tolist()) == list(range(12))
    assert ids[:12].tolist() != ids[12:].tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident_bytes", [0, 2**20])
def test_gather_on_cuda_equals_the_cpu(resident_bytes):
    subset, ids = some_images(), torch.tensor([5, 0, 11])
    expected = DeviceImages(subset, torch.device("cpu")).gather(ids)
    got = DeviceImages(subset, torch.device("cuda"), resident_bytes=resident_bytes).gather(ids)
    assert all(a.is_cuda and torch.equal(a.cpu(), b) for a, b in zip(got, expected, strict=True))
