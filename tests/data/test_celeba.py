"""The paper's CelebA experiment on a folder as CelebA's authors give it out: which images, and which part of them."""

import numpy as np
import pytest
from PIL import Image

from fastddpm.config import load_config
from fastddpm.data import load_splits

NUM_OF = {"train": 30, "valid": 4, "test": 6}


def make_celeba(folder, num_of):
    """Pictures of 178x218, each of its own large patches, in splits that take turns in the list."""
    (folder / "img_align_celeba").mkdir()
    rng = np.random.default_rng(0)
    splits = rng.permutation([code for code, count in enumerate(num_of.values()) for _ in range(count)])
    rows = []
    for number, code in enumerate(splits, start=1):
        patches = Image.fromarray(rng.integers(0, 256, (11, 9, 3), dtype=np.uint8))
        patches.resize((178, 218), Image.Resampling.NEAREST).save(
            folder / "img_align_celeba" / f"{number:06d}.jpg", quality=95
        )
        rows.append(f"{number:06d}.jpg {code}\n")
    (folder / "list_eval_partition.txt").write_text("".join(rows))
    return folder


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    """Forty pictures."""
    return make_celeba(tmp_path_factory.mktemp("celeba"), NUM_OF)


def names_of(celeba, split):
    rows = (celeba / "list_eval_partition.txt").read_text().splitlines()
    return [name for name, code in map(str.split, rows) if list(NUM_OF)[int(code)] == split]


def files_by_pixels(celeba):
    """`inner` of an image as stored, (3, 64, 64) uint8 -> the file it comes from, if it is the right part of it."""
    found = {}
    for path in (celeba / "img_align_celeba").iterdir():
        square = Image.open(path).crop((0, 20, 178, 198))  # the largest one, in the middle
        pixels = np.asarray(square.resize((64, 64), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        found[inner(pixels)] = path.name
    return found


@pytest.fixture(scope="module")
def name_of(celeba):
    """Image as stored -> its file."""
    found = files_by_pixels(celeba)
    assert len(found) == sum(NUM_OF.values())
    return lambda image: found.get(inner(image), "another part")


def inner(image):
    """The bytes without two rows each of top and bottom: there the filter reaches beyond the square."""
    assert image.shape == (3, 64, 64)
    return np.ascontiguousarray(image[:, 2:-2]).tobytes()


@pytest.fixture
def load(celeba, tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / "celeba-cache"

    def load_(seed=0, **overrides):
        settings = {"source": celeba, "cache_dir": cache, "num_images": 12, "num_held_out": 3, **overrides}
        given = {f"data.{name}": str(value) for name, value in settings.items()}
        config = load_config("celeba64-paper", {"output_dir": "runs/none", "seed": str(seed), **given})
        return load_splits(config.data, seed=config.seed, show_progress=False)

    return load_


def names_in(subset, name_of):
    return [name_of(subset.image(place)) for place in range(len(subset))]


def test_the_middle_square_becomes_64x64_in_colour(load, celeba, name_of):
    splits = load()
    for subset, split, count in ((splits.train, "train", 12), (splits.held_out, "valid", 3)):
        assert subset.image_shape == (3, 64, 64)
        names = set(names_in(subset, name_of))
        assert len(names) == len(subset) == count
        assert names < set(names_of(celeba, split))


def test_training_images_are_some_of_the_official_ones_at_random(load, celeba, name_of):
    official = names_of(celeba, "train")
    one, again, other = (names_in(load(seed=seed).train, name_of) for seed in (1, 1, 2))
    for chosen in (one, other):
        assert set(chosen) < set(official)
        assert set(chosen) != set(official[:12]), "the first of the list"
    assert one == again
    assert set(one) != set(other)
    assert sorted(names_in(load(num_images=30).train, name_of)) == official


def test_held_out_images_are_the_packaged_configs_official_validation_images(load, celeba, name_of):
    assert sorted(names_in(load(num_held_out=4).held_out, name_of)) == names_of(celeba, "valid")


@pytest.mark.parametrize("seed", [0, 1])
def test_held_out_images_may_be_all_official_test_images(load, celeba, name_of, seed):
    splits = load(seed=seed, held_out_split="test", num_held_out=6)
    assert sorted(names_in(splits.held_out, name_of)) == names_of(celeba, "test")
    assert set(names_in(splits.train, name_of)) < set(names_of(celeba, "train"))
    assert splits.num_copies_left_out == 0


def test_more_test_images_than_there_are_is_refused(load):
    with pytest.raises(ValueError, match=r"holds 30 images in split train and 6 images in split test, .* wanted 7"):
        load(held_out_split="test", num_held_out=7)
