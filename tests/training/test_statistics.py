"""BatchNorm's statistics in the saved model are right for the saved weights."""

import subprocess
import sys

import pytest
import torch

from fastddpm import FastDDPMPipeline
from fastddpm.config import load_config
from fastddpm.data import DeviceImages, load_splits
from fastddpm.training.loss import Objective

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The paper's network, narrow, on real digits."""
    folder = tmp_path_factory.mktemp("digits")
    settings = {
        "out": str(folder / "run"), "data.source": "digits", "data.num_held_out": "512",
        "data.cache_dir": str(folder / "cache"), "model.block_out_channels": "[8, 16, 32]",
        "train.num_images_seen": "25600", "train.ema_decay": "0.99", "train.learning_rate": "3e-3",
        "train.lr_schedule": "cosine", "train.num_threads": "2", "train.mixed_precision": "no",
        "sample.num_images": "4", "sample.num_inference_steps": "5", "train.checkpoint_every": "0",
    }  # fmt: skip
    (folder / "empty.yaml").write_text("seed: 0\n")
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    subprocess.run(
        [sys.executable, "-m", "fastddpm", "train", "--config", folder / "empty.yaml", *words], check=True, timeout=300
    )
    return load_config(folder / "run" / "config.yaml")


@pytest.fixture(scope="module")
def loss_of(run):
    splits = load_splits(run.data, seed=run.seed, show_progress=False)
    images, _ = DeviceImages(splits.held_out, torch.device("cpu")).gather(torch.arange(512))

    @torch.no_grad()
    def loss_of(unet, scheduler):
        objective = Objective(scheduler, run.train, None, run.seed)
        return objective.held_out(unet, images, None, torch.arange(512))[0].mean().item()

    return loss_of


def load(run):
    pipeline = FastDDPMPipeline.from_pretrained(run.output_dir)
    return pipeline.unet, pipeline.scheduler


def test_eval_mode_loss_is_that_of_batch_statistics_within_5_percent(run, loss_of):
    unet, scheduler = load(run)
    saved = loss_of(unet.eval(), scheduler)
    batch_statistics = loss_of(unet.train(), scheduler)
    assert saved < 0.2, "an untrained model proves nothing"
    assert saved == pytest.approx(batch_statistics, rel=0.05)


def test_statistics_of_a_fresh_batch_norm_would_be_seen(run, loss_of):
    unet, scheduler = load(run)
    right = loss_of(unet.eval(), scheduler)
    for module in unet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
    assert loss_of(unet.eval(), scheduler) > 1.05 * right
