import numpy as np
import pytest
import torch

from fastddpm.config import DataConfig
from fastddpm.data import DeviceImages, load_splits, to_uint8, to_unit_range


def split(image_folder, *, seed=0, **options):
    given = DataConfig(source=str(image_folder), cache_dir=str(image_folder.parent / "cache"), **options)
    return load_splits(given, seed=seed, show_progress=False)


def test_parts_never_overlap_and_cover_everything(image_folder):
    splits = split(image_folder, num_held_out=5)
    assert (len(splits.train), len(splits.held_out)) == (19, 5)
    assert sorted([*splits.train.places, *splits.held_out.places]) == list(range(24))


def test_split_depends_on_the_seed(image_folder):
    places = [tuple(split(image_folder, num_held_out=5, seed=seed).held_out.places) for seed in (0, 0, 1)]
    assert places[0] == places[1] != places[2]


def test_held_out_images_stay_when_fewer_are_trained_on(image_folder):
    whole, part = split(image_folder, num_held_out=5), split(image_folder, num_held_out=5, num_images=3)
    assert np.array_equal(whole.held_out.places, part.held_out.places)
    assert len(part.train) == 3
    assert whole.fingerprint != part.fingerprint


def test_both_classes_are_in_a_split_of_a_sorted_source(image_folder):
    train = split(image_folder, num_held_out=12).train
    assert set(train.images.labels[train.places]) == {0, 1}


@pytest.mark.parametrize("options", [{"num_held_out": 24}, {"num_images": 25}, {"num_held_out": 10, "num_images": 15}])
def test_too_few_images_are_said_with_counts(image_folder, options):
    with pytest.raises(ValueError, match="24 images in .* are too few for"):
        split(image_folder, **options)


def test_gather_is_the_same_from_the_device_and_from_the_map(image_folder):
    train = split(image_folder, num_held_out=5).train
    resident = DeviceImages(train, torch.device("cpu"))
    mapped = DeviceImages(train, torch.device("cpu"), max_bytes_on_device=0)
    ids = torch.tensor([3, 0, 18, 3])
    for images in (resident, mapped):
        pixels, labels = images.gather(ids)
        assert pixels.dtype == torch.uint8
        for row, index in enumerate(ids):
            assert np.array_equal(pixels[row].numpy(), train.image(int(index)))
            assert labels[row] == train.images.labels[train.places[index]]


def test_pixels_go_to_the_unit_range_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    unit = to_unit_range(levels)
    assert (unit.min(), unit.max(), unit.dtype) == (-1, 1, torch.float32)
    assert torch.equal(to_uint8(unit), levels)


def test_to_uint8_clips_and_rounds_to_the_nearest():
    assert to_uint8(torch.tensor([-3.0, 0.0, 5.0])).tolist() == [0, 128, 255]
    fine = torch.linspace(-1, 1, 10_001)
    assert (to_uint8(fine).float() - (fine + 1) * 127.5).abs().max() <= 0.5 + 1e-4
