"""The share of samples that look like their class, on digits: a sample is a picture, and no model is asked."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastddpm.config import DataConfig, load_config
from fastddpm.data import DeviceImages, load_splits
from fastddpm.training import class_share as module
from fastddpm.training.class_share import class_share


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Digits as a run holds them."""
    cache = str(tmp_path_factory.mktemp("cache"))
    config = load_config("quickstart", {"data.cache_dir": cache})
    splits, cpu = load_splits(DataConfig(num_held_out=200, cache_dir=cache), seed=0), torch.device("cpu")
    images, held_out = (DeviceImages(part, cpu) for part in (splits.train, splits.held_out))
    return SimpleNamespace(config=config, splits=splits, images=images, held_out=held_out)


@pytest.fixture
def of_ten_classes(monkeypatch):
    monkeypatch.setattr(module, "pipeline_of", lambda run: SimpleNamespace(num_classes=10))


def of_classes(digits, shift):
    """An image of each class in turn, those of `shift` classes further on."""
    pixels, labels = digits.held_out.gather(torch.arange(len(digits.held_out)))
    places = [int((labels == (i + shift) % 10).nonzero()[i // 10 % 10]) for i in range(60)]
    return pixels[places].numpy()


def test_real_digits_look_like_their_class_and_others_and_noise_do_not(digits, of_ten_classes):
    noise = np.random.default_rng(0).integers(0, 256, (60, 1, 28, 28), dtype=np.uint8)
    right, wrong, none = (
        class_share(digits, samples) for samples in (of_classes(digits, 0), of_classes(digits, 1), noise)
    )
    assert right["class_share"] == pytest.approx(right["class_share_of_reals"], abs=0.15)
    assert right["class_share_of_reals"] > 0.7
    assert wrong["class_share"] < 0.1
    assert none["class_share"] < 0.2


def test_classes_that_pixels_do_not_tell_apart_say_nothing(digits, of_ten_classes):
    shuffled = SimpleNamespace(**vars(digits))
    shuffled.images = DeviceImages(digits.splits.train, torch.device("cpu"))
    gathered = shuffled.images.gather
    shuffled.images.gather = lambda ids: (gathered(ids)[0], gathered(ids)[1].roll(1))
    assert class_share(shuffled, of_classes(digits, 0)) is None
