"""Classes, from labelled folders to pictures of the class asked for."""

import json

import numpy as np
import pytest

import fastddpm
from fastddpm import FastDDPMPipeline
from fastddpm.cli import main

SETTINGS = {
    "model.block_out_channels": [16, 32], "model.block_type": "residual", "model.norm_type": "group",
    "model.norm_num_groups": 8, "model.time_embedding_dim": 16, "model.class_conditional": True,
    "scheduler.num_train_timesteps": 100, "scheduler.beta_end": 0.1, "scheduler.prediction_type": "v_prediction",
    "train.batch_size": 24, "train.num_images_seen": 6400, "train.learning_rate": 5e-3, "train.lr_schedule": "cosine",
    "train.ema_decay": 0.9, "train.label_dropout": 0.3, "train.mixed_precision": "no", "train.num_threads": 1,
    "train.checkpoint_every": 0, "sample.num_images": 4, "sample.num_inference_steps": 10, "sample.guidance_scale": 1.5,
}  # fmt: skip


@pytest.fixture
def run(image_folder, tmp_path):
    """Trained on dark and light images: classes 0 and 1, of mean brightness 0.2 and 0.8."""
    places = {"data.source": str(image_folder), "data.cache_dir": str(tmp_path / "cache")}
    config = fastddpm.load_config(None, {**SETTINGS, **places, "output_dir": str(tmp_path / "run")})
    return fastddpm.train(config)


@pytest.mark.slow
def test_a_class_is_learnt_asked_for_and_guided_to(run, tmp_path):
    facts = dict(json.loads((run / "about.json").read_text())["facts"])
    assert facts["classes"] == "2: 0 dark, 1 light"
    pipeline = FastDDPMPipeline.from_pretrained(run)
    pipeline.set_progress_bar_config(disable=True)

    def brightness(label, scale):
        images = pipeline(
            seeds=range(32), class_labels=[label] * 32, guidance_scale=scale, num_inference_steps=20, output_type="np"
        ).images
        return images.mean(axis=(1, 2, 3))

    dark, light, either = (brightness(label, 1.0) for label in (0, 1, 2))
    assert (dark < 0.5).mean() > 0.9
    assert (light > 0.5).mean() > 0.9
    assert 0.1 < (either > 0.5).mean() < 0.9, "the null class draws both"
    apart = [brightness(1, scale).mean() - brightness(0, scale).mean() for scale in (0.0, 1.0, 3.0)]
    assert abs(apart[0]) < 1e-3, "scale 0 is the null class, whatever the label"
    assert apart[0] < apart[1] < apart[2]

    main([
        "sample", str(run), "--num_images", "8", "--num_inference_steps", "20", "--class_label", "1",
        "--guidance_scale", "2", "--out", str(tmp_path / "light"),
    ])  # fmt: skip
    from PIL import Image

    drawn = [np.array(Image.open(path)).mean() / 255 for path in sorted((tmp_path / "light").glob("*.png"))]
    assert len(drawn) == 8
    assert np.mean(drawn) > 0.6
    main([
        "vary", str(run), str(tmp_path / "light" / "000000.png"), "--start_timesteps", "100", "--num_images", "4",
        "--class_label", "0", "--guidance_scale", "2", "--out", str(tmp_path / "dark"),
    ])  # fmt: skip
    varied = [np.array(Image.open(path)).mean() / 255 for path in (tmp_path / "dark").glob("*.png")]
    assert np.mean(varied) < 0.4
