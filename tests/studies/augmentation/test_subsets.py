"""Which images are labelled."""

import numpy as np
import pytest

from fastddpm.config import DataConfig
from fastddpm.data import load_splits
from fastddpm.data.named_pictures import named_images
from fastddpm.studies.augmentation.subsets import Labelled, check_sizes, choose_labelled, labelled_of, save_labelled
from tests.studies.augmentation.conftest import stripes

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [60, 30, 25]))


@pytest.mark.parametrize("size", [3, 7, 60])
def test_each_class_has_as_many_as_the_others(size):
    chosen = choose_labelled(LABELS, size, seed=0, repeat=0)
    assert len(set(chosen.tolist())) == size
    counts = np.bincount(LABELS[chosen])
    assert counts.max() - counts.min() <= 1


def test_a_choice_is_its_seeds_and_repeats_own():
    first = choose_labelled(LABELS, 30, seed=0, repeat=0)
    assert first.tolist() == choose_labelled(LABELS, 30, seed=0, repeat=0).tolist()
    for other in ({"seed": 0, "repeat": 1}, {"seed": 1, "repeat": 0}):
        shared = set(first.tolist()) & set(choose_labelled(LABELS, 30, **other).tolist())
        assert len(shared) < 22


def test_a_larger_set_holds_the_smaller_one_of_its_repeat():
    smaller, larger = (set(choose_labelled(LABELS, size, seed=3, repeat=2).tolist()) for size in (10, 31))
    assert smaller < larger


def test_which_class_gets_one_more_changes_with_the_repeat():
    most = {int(np.bincount(LABELS[choose_labelled(LABELS, 4, seed=0, repeat=r)]).argmax()) for r in range(12)}
    assert most == {0, 1, 2}


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_a_labelled_source(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (6, channels, 8, 8), dtype=np.uint8)
    labels = np.array([2, 0, 1, 2, 0, 1])
    path = tmp_path / "deep" / "labelled.npz"
    save_labelled(path, Labelled(images, labels))
    found = named_images(str(path))
    assert np.array_equal(found.images, images)
    assert found.labels.tolist() == labels.tolist()
    save_labelled(path, Labelled(images[:1], labels[:1]))
    assert len(np.load(path)["labels"]) == 6, "a file that is there stays"


def part(tmp_path, labels, count=12):
    images, _ = stripes(count)
    arrays = {"images": images} if labels is None else {"images": images, "labels": labels}
    np.savez(tmp_path / "data.npz", **arrays)
    return load_splits(DataConfig(source=str(tmp_path / "data.npz")), seed=0).train


def test_images_come_with_their_own_labels(tmp_path):
    images, labels = stripes(12)
    found = labelled_of(part(tmp_path, labels))
    of_pixels = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert [of_pixels[image.tobytes()] for image in found.images[:, 0]] == found.labels.tolist()


def test_images_without_labels_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no labels, and accuracy is of labels; give class folders"):
        labelled_of(part(tmp_path, None))


def test_one_class_is_refused(tmp_path):
    with pytest.raises(ValueError, match="all 12 images have one label; accuracy wants at least two classes"):
        labelled_of(part(tmp_path, np.ones(12, dtype=int)))


@pytest.mark.parametrize(
    ("sizes", "held_out", "message"),
    [
        ((2, 9), [0, 1], "num_labelled goes down to 2 and there are 3 classes; .* raise it to at least 3"),
        ((3, 90), [0, 1], "up to 30 of each of 3 classes, but label 2 has 25 images that are not held out"),
        ((3, 9), [0, 5], r"the held-out images have the labels \[5\], which no image to learn from has"),
    ],
)
def test_sizes_that_the_images_do_not_have_are_refused(sizes, held_out, message):
    pool = Labelled(np.zeros((115, 1, 8, 8), np.uint8), LABELS)
    with pytest.raises(ValueError, match=message):
        check_sizes(pool, Labelled(pool.images[:2], np.array(held_out)), sizes)
    check_sizes(pool, Labelled(pool.images[:2], np.array([0, 1])), (3, 75))
