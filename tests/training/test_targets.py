"""Each training target learns a set of one image, and its samples are that image."""

import numpy as np
import pytest
from PIL import Image

import fastddpm
from fastddpm import FastDDPMPipeline
from fastddpm.training.metrics import read_metrics

SETTINGS = {
    "model.block_out_channels": [16, 32], "model.block_type": "residual", "model.norm_type": "group",
    "model.norm_num_groups": 8, "model.time_embedding_dim": 16, "scheduler.num_train_timesteps": 100,
    "scheduler.beta_end": 0.1, "train.batch_size": 32, "train.num_images_seen": 6400, "train.learning_rate": 5e-3,
    "train.lr_schedule": "cosine", "train.ema_decay": 0.9, "train.timestep_sampling": "stratified",
    "train.mixed_precision": "no", "train.num_threads": 1, "train.checkpoint_every": 0, "sample.num_images": 2,
    "sample.num_inference_steps": 5,
}  # fmt: skip
V, SAMPLE = {"scheduler.prediction_type": "v_prediction"}, {"scheduler.prediction_type": "sample"}
WEIGHTED, ZERO = {"train.min_snr_gamma": 5.0}, {"scheduler.rescale_betas_zero_snr": True}


@pytest.fixture(scope="module")
def disc(tmp_path_factory):
    """A bright disc on a dark ground, nothing else in its folder, and its pixels in [0, 1]."""
    y, x = np.mgrid[0:8, 0:8]
    pixels = (((x - 3.5) ** 2 + (y - 3.5) ** 2 < 9) * 200 + 20).astype(np.uint8)
    folder = tmp_path_factory.mktemp("one")
    for copy in range(32):  # a batch of them
        Image.fromarray(pixels).save(folder / f"disc{copy}.png")
    return folder, pixels / 255


@pytest.mark.parametrize(
    ("settings", "largest_loss"),
    [
        # a network that predicts nothing has a loss of about 1, or 0.62 (the image's own square) for "sample"
        pytest.param({}, 0.06, marks=pytest.mark.slow),
        pytest.param(V, 0.08, marks=pytest.mark.slow),
        pytest.param(SAMPLE, 0.002, marks=pytest.mark.slow),
        pytest.param(WEIGHTED, 0.08, marks=pytest.mark.slow),
        pytest.param({**V, **WEIGHTED}, 0.08, marks=pytest.mark.slow),
        pytest.param({**V, **ZERO}, 0.08, marks=pytest.mark.slow),
        pytest.param({**SAMPLE, **ZERO}, 0.002, marks=pytest.mark.slow),
    ],
    ids=["epsilon", "v", "sample", "min-snr", "v-min-snr", "v-zero-snr", "sample-zero-snr"],
)
def test_one_image_is_learnt(disc, tmp_path, settings, largest_loss):
    folder, image = disc
    named = {"output_dir": str(tmp_path / "run"), "data.source": str(folder), "data.cache_dir": str(tmp_path / "cache")}
    run = fastddpm.train(fastddpm.load_config(None, {**SETTINGS, **settings, **named}))
    assert [row["loss"] for row in read_metrics(run / "metrics.jsonl") if "loss" in row][-1] < largest_loss
    pipeline = FastDDPMPipeline.from_pretrained(run)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(seeds=range(4), num_inference_steps=50, output_type="np").images[..., 0]
    distance = np.sqrt(((images - image) ** 2).mean(axis=(1, 2)))
    assert distance.max() < 0.06, "in [0, 1]; noise alone is about 0.5 away"
