"""Held-out and training images, and batches of them."""

import hashlib
import json
import logging
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastddpm import draws
from fastddpm.config import DataConfig
from fastddpm.data import Batches, DeviceImages, ImageSet, Subset, load_splits
from fastddpm.data.batches import READ_AHEAD
from fastddpm.data.store import image_hash


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def digits(cache_dir, seed=0, **options):
    return load_splits(DataConfig(cache_dir=cache_dir, **options), seed=seed, show_progress=False)


def indices(subset):
    return subset.indices_of(torch.arange(len(subset))).numpy()


def test_digits_are_whole_and_no_image_is_in_both_parts(cache_dir):
    splits = digits(cache_dir, num_held_out=500)
    assert splits.train.image_shape == (1, 28, 28)
    assert splits.train.num_classes == 10
    both = np.concatenate([indices(splits.train), indices(splits.held_out)])
    assert sorted(both.tolist()) == list(range(5000))
    assert len(splits.held_out) == 500


def test_the_source_is_sorted_by_class_but_the_parts_are_not(cache_dir):
    splits = digits(cache_dir, num_held_out=500)
    assert (np.diff(splits.train.source.labels) >= 0).all()
    for part in (splits.train, splits.held_out):
        counts = np.bincount(part.labels_of(torch.arange(200)), minlength=10)
        assert counts.min() >= 5  # 20 expected; P(any below 5) < 1e-3, and the order is a constant


def test_another_num_images_keeps_the_held_out_images(cache_dir):
    small, large = (digits(cache_dir, num_held_out=100, num_images=n) for n in (50, 1000))
    np.testing.assert_array_equal(indices(small.held_out), indices(large.held_out))
    np.testing.assert_array_equal(indices(small.train), indices(large.train)[:50])
    assert small.fingerprint != large.fingerprint


def test_the_seed_decides(cache_dir):
    one, again, other = (digits(cache_dir, seed=seed, num_images=100) for seed in (1, 1, 2))
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert set(indices(one.train)) != set(indices(other.train))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"num_images": 4000, "num_held_out": 1001},
            "holds 5000 images, each counted once, wanted 1001 held out and 4000 for training",
        ),
        ({"num_held_out": 5000}, "wanted 5000 held out and at least 1 for training; lower --data.num_held_out"),
    ],
)
def test_too_few_images_are_refused_with_their_number(cache_dir, options, expected):
    with pytest.raises(ValueError, match=expected):
        digits(cache_dir, **options)


def some_images(labels=True) -> Subset:
    """Nine images of 17 in a split, which begins with the third of 20, and three copies."""
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 5, 4), dtype=np.uint8)
    copies = np.array([[4, 7], [9, 9], [4, 1]]) if labels else np.array([[4, -1], [9, -1], [4, -1]])
    source = ImageSet(
        images=images,
        labels=np.arange(20) if labels else None,
        label_names=tuple("abcdefghijklmnopqrst") if labels else None,
        fingerprint="",
        hashes=np.stack([np.frombuffer(image_hash(image), np.uint8) for image in images]),
        duplicates=np.column_stack([copies, np.zeros(3, dtype=np.int64)]),
        splits={"some": range(3, 20)},
        facts={},
        folder=Path("store"),
    )
    chosen = np.array([12, 4, 9, 19, 3, 7, 15, 8, 11])
    return Subset.of(source, chosen, source.duplicates)


def test_a_subset_has_its_images_and_then_the_copies():
    subset = some_images()
    assert indices(subset).tolist() == [12, 4, 9, 19, 3, 7, 15, 8, 11, 4, 9, 4]
    assert subset.labels_of(torch.arange(12)).tolist() == [12, 4, 9, 19, 3, 7, 15, 8, 11, 7, 9, 1]
    assert subset.indices_of(torch.tensor([11, 0])).tolist() == [4, 12]


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
        np.testing.assert_array_equal(batch_labels.numpy(), subset.labels_of(ids).numpy())
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
    ids = draws.sample_ids(torch.arange(24), len(images), seed=3)
    assert sorted(ids[:12].tolist()) == sorted(ids[12:].tolist()) == list(range(12))
    assert ids[:12].tolist() != ids[12:].tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident_bytes", [0, 2**20])
def test_gather_on_cuda_equals_the_cpu(resident_bytes):
    subset, ids = some_images(), torch.tensor([5, 0, 11])
    expected = DeviceImages(subset, torch.device("cpu")).gather(ids)
    got = DeviceImages(subset, torch.device("cuda"), resident_bytes=resident_bytes).gather(ids)
    assert all(a.is_cuda and torch.equal(a.cpu(), b) for a, b in zip(got, expected, strict=True))


def test_an_image_that_changed_in_the_map_is_noticed_when_it_is_read():
    subset = some_images()
    images = DeviceImages(subset, torch.device("cpu"), resident_bytes=0)
    ids = torch.tensor([0, 5])
    images.gather(ids)
    subset.source.images[int(subset.indices_of(ids)[1]), 0, 0, 0] ^= 1
    with pytest.raises(ValueError, match=r"image \d+ in store is not what was stored; remove that folder"):
        images.gather(ids)


# ------------------------------------------------------------------------------------------ no overlap


def save(folder, *pixels, start=0):
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(pixels, start=start):
        Image.fromarray(image).save(folder / f"{index:03d}.png")


def test_copies_of_held_out_images_are_left_out_and_others_count(tmp_path, caplog):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    save(tmp_path / "in", *pixels, *pixels[:20])  # two of each of the first twenty
    config = DataConfig(source=str(tmp_path / "in"), cache_dir=str(tmp_path / "cache"), num_held_out=15)
    with caplog.at_level(logging.WARNING):
        splits = load_splits(config, seed=0)
    assert splits.train.source.facts["num_duplicates"] == 20
    held, train = indices(splits.held_out), indices(splits.train)
    assert len(set(held)) == 15
    assert not set(held) & set(train)
    left_out = int((held < 20).sum())
    assert 0 < left_out < 15
    assert len(train) == 50 - 15 - left_out
    assert f"left {left_out} images out of training: copies of held-out ones" in caplog.text
    assert all((train == index).sum() == (2 if index < 20 else 1) for index in set(train))


def test_named_splits_never_overlap_even_where_they_hold_the_same_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    save(tmp_path / "in" / "train", *pixels[:15])
    save(tmp_path / "in" / "test", *pixels[10:])  # five of the training images among them
    options = {"source": str(tmp_path / "in"), "cache_dir": str(tmp_path / "cache")}
    splits = load_splits(DataConfig(**options, held_out_split="test", num_held_out=5), seed=0)
    held = {splits.held_out.image(i).tobytes() for i in range(5)}
    assert held == {image.tobytes() for image in pixels[15:]}
    assert {splits.train.image(i).tobytes() for i in range(15)} == {image.tobytes() for image in pixels[:15]}
    with pytest.raises(ValueError, match=r"5 images in split test, each counted once \(one that is in both counts"):
        load_splits(DataConfig(**options, held_out_split="test", num_held_out=6), seed=0)
    other = load_splits(DataConfig(**options, train_split="test", held_out_split="train", num_held_out=10), seed=0)
    train = {other.train.image(i).tobytes() for i in range(len(other.train))}
    assert not train & {other.held_out.image(i).tobytes() for i in range(10)}


def test_splits_that_change_places_are_told_apart(tmp_path):
    save(tmp_path / "in" / "train", *(np.full((4, 4), value, dtype=np.uint8) for value in range(5)))
    save(tmp_path / "in" / "test", *(np.full((4, 4), value, dtype=np.uint8) for value in range(5, 8)))
    options = {"source": str(tmp_path / "in"), "cache_dir": str(tmp_path / "cache")}
    sides = {"train_split": "train", "held_out_split": "test"}, {"train_split": "test", "held_out_split": "train"}
    for asked in (*sides, {"held_out_split": "test"}, {"train_split": "test"}):
        num_held_out = 2 if "held_out_split" in asked else 0
        splits = load_splits(DataConfig(**options, **asked, num_held_out=num_held_out), seed=0)
        values = {"train": range(5), "test": range(5, 8)}
        train = {int(splits.train.image(place).max()) for place in range(len(splits.train))}
        held_out = {int(splits.held_out.image(place).max()) for place in range(len(splits.held_out))}
        assert train == {*values[asked.get("train_split", "train")]}
        assert len(held_out) == num_held_out
        assert held_out <= {*values[asked.get("held_out_split", "train")]}


def test_splits_that_are_not_there_are_named(tmp_path):
    save(tmp_path / "in" / "train", np.zeros((4, 4), dtype=np.uint8))
    options = {"source": str(tmp_path / "in"), "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(ValueError, match="has the splits train, wanted 'valid'"):
        load_splits(DataConfig(**options, held_out_split="valid", num_held_out=1), seed=0)
    with pytest.raises(ValueError, match="digits has no named splits, wanted 'test'; leave train_split"):
        load_splits(DataConfig(cache_dir=str(tmp_path / "cache"), train_split="test"), seed=0)


@pytest.mark.parametrize(("num_images", "num_held_out"), [(1000, 100), (200, 20), (50, 20), (30, 15), (3, 1), (1, 0)])
def test_a_share_holds_out_what_detect_wants_but_never_more_than_half(tmp_path, num_images, num_held_out):
    np.save(tmp_path / "in.npy", np.random.default_rng(0).integers(0, 256, (num_images, 4, 4, 1), dtype=np.uint8))
    config = DataConfig(source=str(tmp_path / "in.npy"), cache_dir=str(tmp_path / "cache"), num_held_out=0.1)
    splits = load_splits(config, seed=0)
    assert (len(splits.held_out), len(splits.train)) == (num_held_out, num_images - num_held_out)
    assert not set(indices(splits.held_out)) & set(indices(splits.train))


# ------------------------------------------------------------------------------------------ classes


def labelled(tmp_path, counts, *, pixels=None, name="in.npz"):
    """A set with so many images of each class, each once."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 5, 5), dtype=np.uint8)
    np.savez(tmp_path / name, images=images if pixels is None else pixels, labels=labels)
    return {"source": str(tmp_path / name), "cache_dir": str(tmp_path / "cache")}


def plain_order(splits, seed):
    """Images in the order of the seed alone."""
    count = len(splits.train.source.images)
    return draws.shuffled(torch.arange(count), count, seed=seed, epoch=0, stream=draws.Stream.SPLIT).tolist()


def test_one_image_of_each_class_stays_in_training_and_else_nothing_moves(tmp_path):
    options, moved = labelled(tmp_path, [20, 20, 1, 2]), 0
    for seed in range(30):
        splits = load_splits(DataConfig(**options, num_held_out=10), seed=seed, show_progress=False)
        held, train, order = (
            indices(splits.held_out).tolist(),
            indices(splits.train).tolist(),
            plain_order(splits, seed),
        )
        assert sorted(held + train) == list(range(43))
        assert len(held) == 10
        assert set(splits.train.labels_of(torch.arange(33)).tolist()) == {0, 1, 2, 3}
        is_forced = 40 in order[:10] or {41, 42} <= set(order[:10])
        assert (held == order[:10] and train == order[10:]) != is_forced
        exchanged = set(order[:10]) - set(held)
        assert len(exchanged) == (40 in order[:10]) + ({41, 42} <= set(order[:10]))
        moved += is_forced
        assert splits.train.count_classes() == dict(
            zip("0123", np.bincount(splits.train.labels_of(torch.arange(33))).tolist(), strict=True)
        )
    assert 3 < moved < 27


def test_the_fingerprint_of_a_split_changes_only_where_it_had_to_move(tmp_path):
    options, fingerprints = labelled(tmp_path, [20, 20, 1]), set()
    for seed in range(40):
        splits = load_splits(DataConfig(**options, num_held_out=10), seed=seed, show_progress=False)
        parts = [("all", 10, len(splits.train), seed), ("all", 0, 10, seed)]
        before = hashlib.sha256(json.dumps([splits.train.source.fingerprint, parts]).encode()).hexdigest()
        fingerprints.add((splits.fingerprint == before, 40 in plain_order(splits, seed)[:10]))
    assert fingerprints == {(True, False), (False, True)}


def test_the_last_image_of_a_class_stays_also_where_all_others_have_copies(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 5, 5), dtype=np.uint8)
    options = labelled(tmp_path, [16, 1], pixels=np.concatenate([pixels[:8], pixels[:8], pixels[8:]]))
    for seed in range(20):
        splits = load_splits(DataConfig(**options, num_held_out=4), seed=seed, show_progress=False)
        assert not set(indices(splits.held_out)) & set(indices(splits.train))
        counts = splits.train.count_classes()
        assert sum(counts.values()) == len(splits.train)
        assert counts["1"] == 1


@pytest.mark.parametrize("labels", [[1, 2, 3], [0, 7]])
def test_only_classes_with_an_image_are_built_and_the_others_named(tmp_path, labels, caplog):
    options = labelled(tmp_path, [6 if label in labels else 0 for label in range(8)])
    splits = load_splits(DataConfig(**options), seed=0)
    assert splits.train.num_classes == len(labels)
    assert splits.train.count_classes() == {str(label): 6 for label in labels}
    assert set(splits.train.labels_of(torch.arange(6 * len(labels))).tolist()) == set(range(len(labels)))
    absent = [str(label) for label in range(max(labels)) if label not in labels]
    assert f"without a training image, left out: {', '.join(absent)}" in caplog.text


def test_classes_of_another_split_alone_are_none(tmp_path, caplog):
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (6, 5, 5), dtype=np.uint8) for name in ("train", "test")}
    np.savez(tmp_path / "in.npz", x_train=images["train"], y_train=[0, 0, 2, 2, 2, 2], x_test=images["test"],
             y_test=[0, 1, 2, 0, 1, 2])  # fmt: skip
    config = DataConfig(
        source=str(tmp_path / "in.npz"), cache_dir=str(tmp_path / "cache"), held_out_split="test", num_held_out=6
    )
    splits = load_splits(config, seed=0)
    assert splits.train.source.label_names == ("0", "2")
    assert sorted(splits.held_out.labels_of(torch.arange(6)).tolist()) == [0, 0, 1, 1, 2, 2], "2: a class of none"
    assert "1 class without a training image, left out: 1" in caplog.text


def test_few_images_of_many_classes_say_which_have_none(tmp_path, caplog):
    splits = load_splits(DataConfig(**labelled(tmp_path, [5] * 6), num_images=3), seed=0)
    assert sum(splits.train.count_classes().values()) == 3
    without = 6 - sum(map(bool, splits.train.count_classes().values()))
    assert f"{without} classes without a training image among data.num_images: " in caplog.text


# ------------------------------------------------------------------------------------------ batches


def positions_of(step):
    return [torch.arange(step * 8, step * 8 + 4), torch.arange(step * 8 + 4, step * 8 + 8)]


def test_batches_read_ahead_are_those_of_a_resident_set():
    subset = some_images()
    resident = Batches(DeviceImages(subset, torch.device("cpu")), positions_of, seed=3, last_step=30)
    mapped = Batches(DeviceImages(subset, torch.device("cpu"), resident_bytes=0), positions_of, seed=3, last_step=30)
    for step in (*range(12), 20, *range(25, 30)):
        for one, other in zip(resident.of_step(step), mapped.of_step(step), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    mapped.close()


class Stalling(DeviceImages):
    """On a disk that may stop answering."""

    def __init__(self, subset):
        super().__init__(subset, torch.device("cpu"), resident_bytes=0)
        self.answers, self.num_reads = threading.Event(), 0

    def gather(self, sample_ids):
        assert self.answers.wait(60)
        self.num_reads += 1
        return super().gather(sample_ids)


def test_waiting_for_data_is_counted_and_reading_ahead_hides_it():
    images = Stalling(some_images())
    batches = Batches(images, positions_of, seed=3, last_step=20)
    threading.Timer(0.2, images.answers.set).start()
    batches.of_step(0)
    assert 0.1 < batches.waited_seconds < 50
    while images.num_reads < 2 * (1 + READ_AHEAD):
        time.sleep(0.01)
    images.answers.clear()
    before = batches.waited_seconds
    for step in range(1, 1 + READ_AHEAD):  # while what comes after them cannot be read
        batches.of_step(step)
    assert batches.waited_seconds - before < 50
    images.answers.set()
    batches.close()


def test_a_failure_while_reading_ahead_is_raised_in_its_step():
    subset = some_images()
    batches = Batches(DeviceImages(subset, torch.device("cpu"), resident_bytes=0), positions_of, seed=3, last_step=30)
    batches.of_step(0)
    subset.source.images[:] ^= 1
    with pytest.raises(ValueError, match="is not what was stored"):
        [batches.of_step(step) for step in range(1, 30)]
    batches.close()
