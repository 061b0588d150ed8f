"""Crops and flips: keyed by position, each place as likely, and the same network size everywhere."""

import numpy as np
import pytest
import torch
from PIL import Image

import fastddpm
from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, draws
from fastddpm.config import TrainConfig
from fastddpm.data import center_crop
from fastddpm.training.loss import Objective

SIDE = 5
SMALL = {
    "model.block_out_channels": [4, 8], "scheduler.num_train_timesteps": 20, "scheduler.beta_end": 0.5,
    "train.batch_size": 8, "train.num_images_seen": 16, "train.mixed_precision": "no", "train.num_threads": 1,
    "data.num_held_out": 4, "sample.num_images": 4, "sample.num_inference_steps": 2,
}  # fmt: skip


def augmented(images, positions, **options):
    return Objective(FusedDDPMScheduler(), TrainConfig(**options), None, seed=3)._augmented(images, positions)


def places(number, width=9, height=7):
    """Images whose pixels say where they are: row in the first channel, column in the second; 7x9."""
    rows = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.uint8)[None].expand(height, width)
    return torch.stack([rows, columns]).expand(number, 2, height, width).contiguous()


def test_crops_are_those_cut_by_hand():
    torch.manual_seed(0)
    images, positions = torch.randint(0, 256, (32, 3, 7, 9), dtype=torch.uint8), torch.arange(100, 132)
    found = augmented(places(32), positions, random_crop=SIDE)[:, :, 0, 0].tolist()
    cut = torch.stack([image[:, t : t + SIDE, x : x + SIDE] for image, (t, x) in zip(images, found, strict=True)])
    assert torch.equal(augmented(images, positions, random_crop=SIDE), cut)


def test_every_place_occurs_as_often():
    """Of 3 x 5 places; 15,000 draws: a share is 1/15 +- 5 standard deviations (0.0020)."""
    corners = augmented(places(15_000), torch.arange(15_000), random_crop=SIDE)[:, :, 0, 0].long()
    counts = torch.bincount(corners[:, 0] * 5 + corners[:, 1], minlength=15)
    assert len(counts) == 15
    assert (counts / 15_000 - 1 / 15).abs().max() < 5 * 0.0020


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_flips_mirror_one_axis_of_half_of_the_images(axis):
    images, positions = places(2000), torch.arange(2000)
    got = augmented(images, positions, **{f"{axis}_flip": True})
    mirrored = images.flip(-1 if axis == "horizontal" else -2)
    flipped = (got == mirrored).flatten(1).all(1)
    assert torch.equal(got[~flipped], images[~flipped])
    assert 900 < flipped.sum() < 1100


def test_the_two_flips_and_the_two_offsets_are_independent():
    positions = torch.arange(4000)
    both = augmented(places(4000), positions, horizontal_flip=True, vertical_flip=True)
    turned = torch.stack([both[:, 0, 0, 0] > 0, both[:, 1, 0, 0] > 0]).double()
    corners = augmented(places(4000), positions, random_crop=SIDE)[:, :, 0, 0].double().T
    for pair in (turned, corners):
        assert torch.corrcoef(pair)[0, 1].abs() < 5 / 4000**0.5


def test_any_split_into_micro_batches_gives_the_same_pixels():
    torch.manual_seed(0)
    images, positions = torch.randint(0, 256, (16, 1, 7, 9), dtype=torch.uint8), torch.arange(32, 48)
    options = {"random_crop": SIDE, "horizontal_flip": True, "vertical_flip": True}
    whole = augmented(images, positions, **options)
    for size in (1, 4, 8):
        cut = zip(images.split(size), positions.split(size), strict=True)
        parts = [augmented(some, where, **options) for some, where in cut]
        assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, augmented(images, positions + 16, **options))


def test_streams_keep_their_numbers():
    """Another number would change the noise of every run that goes on."""
    assert [stream.value for stream in draws.Stream] == list(range(len(draws.Stream)))
    assert (draws.Stream.FLIP, draws.Stream.LABEL, draws.Stream.CROP) == (3, 9, 10)


def test_the_centre_is_cut():
    assert center_crop(places(1), 5)[0, :, 0, 0].tolist() == [1, 2]
    assert center_crop(places(1), 4)[0, :, 0, 0].tolist() == [1, 2]
    assert center_crop(places(1), None).shape == (1, 2, 7, 9)


def test_held_out_losses_are_of_the_centre():
    class Zeros:
        def __call__(self, x_t, timesteps, class_labels=None):
            return type("Output", (), {"sample": torch.zeros_like(x_t)})

    images, positions = places(4), torch.arange(4)
    cropping, whole = (
        Objective(FusedDDPMScheduler(prediction_type="sample"), TrainConfig(random_crop=side), None, seed=3)
        for side in (SIDE, None)
    )
    losses, _ = cropping.held_out(Zeros(), images, None, positions)
    assert torch.equal(losses, whole.held_out(Zeros(), center_crop(images, SIDE), None, positions)[0])
    assert not torch.equal(losses, whole.held_out(Zeros(), images[:, :, :SIDE, :SIDE], None, positions)[0])


@pytest.fixture
def config(tmp_path):
    """Of 12x12 colour images."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{i:02d}.png")

    def load(**settings):
        named = {"output_dir": str(tmp_path / "run"), "data.cache_dir": str(tmp_path / "cache")}
        return fastddpm.load_config(None, {**SMALL, **named, "data.source": str(tmp_path / "images"), **settings})

    return load


def test_a_run_on_crops_makes_and_is_judged_on_crops(config):
    run = fastddpm.train(config(**{"train.random_crop": 8}))
    unet = FastDDPMPipeline.from_pretrained(run).unet
    assert unet.config.sample_size == 8
    assert Image.open(run / "variations.png").height == 9 * (8 + 2) * 8 + 2  # each pixel 8 wide
    with pytest.raises(ValueError, match=r"train.random_crop was 8, now 4"):
        fastddpm.train(config(**{"train.random_crop": 4}))


@pytest.mark.parametrize("side", [12, 13])
def test_a_crop_that_leaves_nothing_to_draw_is_refused(config, side):
    with pytest.raises(ValueError, match=rf"train.random_crop is {side} and the images are 12x12; use a smaller one"):
        fastddpm.train(config(**{"train.random_crop": side}))
