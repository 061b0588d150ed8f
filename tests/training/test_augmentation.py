"""Crops, flips and data.augment: keyed by position, each place as likely, and the same network size everywhere."""

import numpy as np
import pytest
import torch
from PIL import Image

import fastddpm
from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, draws
from fastddpm.config import AugmentConfig, TrainConfig
from fastddpm.data import center_crop
from fastddpm.studies.dcgan.settings import DCGANConfig
from fastddpm.training.loss import Objective
from fastddpm.training.near_copies import in_words
from tests.training.runs import final_tensors, start, train_here

SIDE = 5
SMALL = {
    "model.block_out_channels": [4, 8], "scheduler.num_train_timesteps": 20, "scheduler.beta_end": 0.5,
    "train.batch_size": 8, "train.num_images_seen": 16, "train.mixed_precision": "no", "train.num_threads": 1,
    "data.num_held_out": 4, "sample.num_images": 4, "sample.num_inference_steps": 2,
}  # fmt: skip


def augmented(images, positions, **options):
    return Objective(FusedDDPMScheduler(), TrainConfig(**options), None, seed=3)._augmented(images, positions)[0]


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


# -- data.augment ------------------------------------------------------------------------------------------------------

AUGMENT = {"data.augment.shift": "0.1", "data.augment.turn": "20", "data.augment.zoom": "0.2",
           "data.augment.contrast": "0.2", "data.augment.brightness": "0.1"}  # fmt: skip


def assert_bit_equal(folder, other):
    one, two = final_tensors(folder), final_tensors(other)
    assert one.keys() == two.keys()
    assert "model/augment_embedding.weight" in one
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_augmented_batches_do_not_depend_on_a_stop_or_on_the_number_of_processes(tmp_path, image_folder):
    settings = {**AUGMENT, "train.determinism": "elastic", "train.micro_batch_size": "2"}
    straight = train_here(tmp_path / "straight", image_folder, **settings)
    plain = train_here(tmp_path / "plain", image_folder, **{**settings, **dict.fromkeys(AUGMENT, "0")})
    assert not torch.equal(*(final_tensors(f)["model/conv_out.weight"] for f in (straight, plain)))
    with pytest.raises(RuntimeError, match="in the middle"):
        train_here(tmp_path / "stopped", image_folder, fail_at=13, **settings)
    assert_bit_equal(train_here(tmp_path / "stopped", image_folder, **settings), straight)
    done = start(tmp_path / "two", image_folder, processes=2, **settings)
    assert done.returncode == 0, done.stderr
    assert_bit_equal(tmp_path / "two", straight)
    with pytest.raises(ValueError, match=r"data.augment.turn was 20.0, now 5.0"):
        train_here(tmp_path / "stopped", image_folder, **{**settings, "data.augment.turn": "5"})


class Listening:
    """Remembers what it was told; predicts zeros."""

    def __call__(self, x_t, timesteps, class_labels=None, **told):
        self.x_t, self.told = x_t, told
        return type("Output", (), {"sample": torch.zeros_like(x_t)})


def test_the_network_is_told_how_each_image_was_augmented_and_nothing_of_held_out_ones():
    images, positions, unet = places(64), torch.arange(64), Listening()
    augment, process = AugmentConfig(turn=30.0, brightness=0.2), FusedDDPMScheduler(prediction_type="sample")
    told, untold, plain = (
        Objective(process, TrainConfig(), None, 3, config, tells)
        for config, tells in ((augment, True), (augment, False), (AugmentConfig(), True))
    )
    seen = {}
    for name, objective in (("told", told), ("untold", untold), ("plain", plain)):
        objective.training(unet, images, None, positions)
        seen[name] = unet.x_t, unet.told
    labels = seen["told"][1]["augment_labels"]
    assert (labels.shape, labels.dtype) == ((64, 6), torch.float32)
    assert seen["untold"][1] == seen["plain"][1] == {}
    assert torch.equal(seen["told"][0], seen["untold"][0])
    changed = (seen["told"][0] != seen["plain"][0]).flatten(1).any(1)
    assert torch.equal(changed, labels.any(1))
    assert 16 < changed.sum() < 48
    assert (labels[changed] != 0).sum(1).tolist() == [2] * int(changed.sum())
    losses = [objective.held_out(unet, images, None, positions)[0] for objective in (told, plain)]
    assert torch.equal(*losses)
    assert unet.told == {}


def test_a_saved_model_draws_without_being_told_and_a_stock_network_is_said_to_leak(config, capsys):
    run = fastddpm.train(config(**AUGMENT, **{"watch.nearest": True}))
    pipeline = FastDDPMPipeline.from_pretrained(run)
    assert pipeline.unet.config.augment_dim == 6
    x_t = torch.rand(2, 3, 12, 12)
    with torch.no_grad():
        alone, zeros = pipeline.unet(x_t, 3).sample, pipeline.unet(x_t, 3, augment_labels=torch.zeros(2, 6)).sample
        assert torch.equal(alone, zeros)
        assert not torch.equal(alone, pipeline.unet(x_t, 3, augment_labels=torch.ones(2, 6)).sample)
    assert "is not told of it" not in capsys.readouterr().out
    stock = {"model.architecture": "UNet2DModel", "model.norm_num_groups": 2, "model.layers_per_block": 1}
    fastddpm.train(config(**AUGMENT, **stock, output_dir=str(run) + "-stock"))
    assert (
        "data.augment is on and a UNet2DModel is not told of it: it learns to draw shifted" in capsys.readouterr().out
    )


def test_a_dcgan_is_not_augmented():
    with pytest.raises(ValueError, match="data.augment is on, and a DCGAN cannot be told of it"):
        DCGANConfig(output_dir="run", data=fastddpm.load_config("quickstart", {"data.augment.turn": 5}).data)


def test_a_verdict_on_copies_says_that_augmented_ones_are_not_looked_for():
    row = {"nearest_verdict": "no sign", "nearest_reals": "held_out", "nearest_num_compared": 100,
           "nearest_num_close": 0, "nearest_num_samples": 64, "nearest_num_reals": 50}  # fmt: skip
    assert "data.augment" not in in_words(row, 100)
    assert in_words({**row, "nearest_augmented": True}, 100).endswith(
        "Training images were compared as they are stored: copies of what data.augment made of them are not found."
    )
