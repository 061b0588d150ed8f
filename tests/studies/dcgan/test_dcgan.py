"""The baseline: its networks, and its training through the same data path, checkpoints and commands."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastddpm import cli
from fastddpm.config import load_config, load_config_of
from fastddpm.pipelines.dcgan import DCGANDiscriminator, DCGANGenerator, DCGANPipeline, first_side_and_levels
from fastddpm.studies.dcgan import training
from fastddpm.studies.dcgan.settings import DCGANConfig
from fastddpm.studies.dcgan.training import train_dcgan
from tests.training.runs import free_port

TINY = {
    "data.num_held_out": 4, "train.num_images_seen": 80, "train.batch_size": 8, "train.latent_dim": 6, "train.width": 4,
    "train.log_every": 2, "train.checkpoint_every": 4, "train.num_threads": 1, "train.mixed_precision": "no",
    "num_samples": 4,
}  # fmt: skip


@pytest.fixture
def settings(tmp_path, image_folder):
    return {**TINY, "data.source": str(image_folder), "data.cache_dir": str(tmp_path / "cache")}


def config_in(folder, settings, **more):
    return load_config_of(DCGANConfig, None, {**settings, "output_dir": str(folder), **more})


def weights_in(folder):
    return DCGANPipeline.from_pretrained(folder).generator.state_dict()


@pytest.mark.parametrize(("size", "first", "levels"), [(28, 7, 2), (64, 4, 4), (8, 4, 1), (32, 4, 3), (20, 5, 2)])
def test_networks_halve_down_to_a_small_side(size, first, levels):
    assert first_side_and_levels(size) == (first, levels)
    generator, discriminator = DCGANGenerator(size, 3, 10, 4), DCGANDiscriminator(size, 3, 4)
    images = generator(torch.randn(5, 10))
    assert images.shape == (5, 3, size, size)
    assert images.abs().max() <= 1
    assert discriminator(images).shape == (5,)
    assert sum(isinstance(layer, nn.ConvTranspose2d) for layer in generator.layers) == levels + 1


def test_networks_are_those_of_the_paper():
    """Radford et al.: no pooling, no dense layers; BatchNorm but next to the image; ReLU and Tanh, leaky ReLU 0.2."""
    generator, discriminator = DCGANGenerator(64, 3), DCGANDiscriminator(64, 3, 64)
    kinds = [type(layer).__name__ for layer in generator.layers]
    assert kinds == ["ConvTranspose2d", "BatchNorm2d", "ReLU"] * 4 + ["ConvTranspose2d", "Tanh"]
    assert [layer.out_channels for layer in generator.layers if isinstance(layer, nn.ConvTranspose2d)] == [
        512, 256, 128, 64, 3,
    ]  # fmt: skip
    kinds = [type(layer).__name__ for layer in discriminator.layers]
    assert kinds == ["Conv2d", "LeakyReLU", *["Conv2d", "BatchNorm2d", "LeakyReLU"] * 3, "Conv2d"]
    assert {layer.negative_slope for layer in discriminator.layers if isinstance(layer, nn.LeakyReLU)} == {0.2}
    for network in (generator, discriminator):
        assert network.layers[-2 if network is generator else -1].weight.detach().std() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("size", [7, 6, 33])
def test_sizes_that_cannot_be_halved_are_refused(size):
    with pytest.raises(ValueError, match=f"images of {size}x{size} cannot be halved"):
        DCGANGenerator(size)


def test_an_image_belongs_to_its_seed():
    torch.manual_seed(0)
    pipeline = DCGANPipeline(DCGANGenerator(8, 1, 6, 4).eval())
    many = pipeline(seeds=range(7), micro_batch_size=3, output_type="pt").images
    assert many.shape == (7, 1, 8, 8)
    assert torch.equal(pipeline(seeds=[5], micro_batch_size=3, output_type="pt").images[0], many[5])
    assert not torch.equal(many[4], many[5])
    by_generator = [pipeline(2, torch.Generator().manual_seed(1), output_type="pt").images for _ in range(2)]
    assert torch.equal(*by_generator)
    assert isinstance(pipeline().images[0], Image.Image)


@pytest.mark.slow
def test_it_learns_a_spot(tmp_path):
    """Bright in the middle, dark around: drawn images become so, and are not at the start."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 40, (64, 8, 8), dtype=np.uint8)
    images[:, 2:6, 2:6] += 200
    np.save(tmp_path / "spots.npy", images)
    more = {"train.num_images_seen": 16 * 400, "train.batch_size": 16, "train.width": 16, "data.num_held_out": 0}
    run = train_dcgan(config_in(tmp_path / "run", {**TINY, "data.source": str(tmp_path / "spots.npy")}, **more))

    def spot(pipeline):
        drawn = pipeline(seeds=range(64), output_type="pt").images[:, 0]
        inside = drawn[:, 2:6, 2:6].mean()
        return float(inside - (drawn.sum() / 64 - 16 * inside) / 48)

    assert spot(DCGANPipeline.from_pretrained(run)) > 0.5
    assert abs(spot(DCGANPipeline(DCGANGenerator(8, 1, 6, 16).eval()))) < 0.2
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"discriminator_loss", "generator_loss", "reals_right", "drawn_right", "images_per_second"} <= set(rows[-1])
    assert rows[-1]["images_seen"] == 6400


def test_a_stopped_run_goes_on_with_the_same_bits(tmp_path, settings, monkeypatch):
    whole = train_dcgan(config_in(tmp_path / "whole", settings))
    original = training.GanRun.step

    def step(self):
        if self.state.step == 6:
            raise RuntimeError("in the middle")
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(training.GanRun, "step", step)
        with pytest.raises(RuntimeError, match="in the middle"):
            train_dcgan(config_in(tmp_path / "cut", settings))
    cut = train_dcgan(config_in(tmp_path / "cut", settings))
    for name, tensor in weights_in(whole).items():
        assert torch.equal(tensor, weights_in(cut)[name]), name
    rows = [[json.loads(line)["generator_loss"] for line in (run / "metrics.jsonl").open()] for run in (whole, cut)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 5


def test_the_commands_of_a_ddpm_take_it(tmp_path, settings, capsys):
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    run = tmp_path / "run"
    cli.main(["dcgan", "--out", str(run), "--config", str(write_yaml(tmp_path)), *words])
    for name in ("model_index.json", "samples.png", "data.json", "config.yaml", "metrics.jsonl"):
        assert (run / name).stat().st_size > 0
    drawn = ["--num_images", "5", "--micro_batch_size", "2", "--num_threads", "1"]
    cli.main(["sample", str(run), "--out", str(tmp_path / "out"), *drawn])
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert rows[4] == {
        "file_name": "000004.png", "seed": 4, "label": None, "generator": "DCGAN", "precision": "fp32",
        "model": str(run),
    }  # fmt: skip
    image = DCGANPipeline.from_pretrained(run)(seeds=[4], micro_batch_size=2).images[0]
    assert np.abs(np.asarray(image).astype(int) - np.asarray(Image.open(tmp_path / "out" / "000004.png"))).max() <= 1
    for words, message in (
        (
            ["sample", run, "--out", tmp_path / "x", "--scheduler", "ddim"],
            "is a DCGAN, which has no scheduler; leave it",
        ),
        (["vary", run, image_in(tmp_path), "--out", tmp_path / "x"], "is a DCGAN, which only draws new images"),
    ):
        with pytest.raises(SystemExit):
            cli.main(list(map(str, words)))
        assert message in capsys.readouterr().err


def image_in(folder):
    Image.new("L", (8, 8)).save(folder / "x.png")
    return folder / "x.png"


def write_yaml(folder):
    (folder / "gan.yaml").write_text("seed: 3\n")
    return folder / "gan.yaml"


def test_other_settings_and_wrong_names_are_refused(tmp_path, settings, capsys):
    train_dcgan(config_in(tmp_path / "run", settings))
    with pytest.raises(ValueError, match="other settings: train.learning_rate was 0.0002, now 0.1"):
        train_dcgan(config_in(tmp_path / "run", settings, **{"train.learning_rate": 0.1}))
    with pytest.raises(ValueError, match="unknown setting train.batchsize: did you mean --train.batch_size"):
        config_in(tmp_path, settings, **{"train.batchsize": 3})
    with pytest.raises(ValueError, match="train.width is 0; it must be at least 1"):
        config_in(tmp_path, settings, **{"train.width": 0})
    with pytest.raises(ValueError, match=r"has 20 training images .* train.batch_size wants 64"):
        train_dcgan(config_in(tmp_path / "other", settings, **{"train.batch_size": 64}))


@pytest.mark.parametrize(("name", "like"), [("dcgan-mnist", "mnist-paper"), ("dcgan-celeba64", "celeba64-paper")])
def test_packaged_configs_train_on_the_data_of_the_papers_ddpm(name, like):
    ours, paper = load_config_of(DCGANConfig, name), load_config(like)
    assert ours.data == paper.data
    assert ours.train.num_images_seen == paper.train.num_images_seen
    assert ours.train.batch_size == paper.train.batch_size
    assert (ours.train.learning_rate, ours.train.adam_betas, ours.train.latent_dim) == (2e-4, (0.5, 0.999), 100)


@pytest.mark.slow
def test_two_processes_train(tmp_path, settings):
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port()), "-m"]
    command = [
        "fastddpm",
        "dcgan",
        "--config",
        str(write_yaml(tmp_path)),
        "--out",
        str(tmp_path / "two"),
        *words,
    ]
    subprocess.run([sys.executable, *launcher, *command], check=True, timeout=240)
    assert DCGANPipeline.from_pretrained(tmp_path / "two")(seeds=[0], output_type="pt").images.isfinite().all()
    assert len((tmp_path / "two" / "metrics.jsonl").read_text().splitlines()) == 5
