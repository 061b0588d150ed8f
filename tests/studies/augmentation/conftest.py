"""Images of stripes, 8x8, and a whole measurement of them at tiny size."""

import copy

import numpy as np
import pytest

from fastddpm.config import load_config_of
from fastddpm.studies.augmentation.settings import GainConfig

TINY = {
    "title": "stripes", "num_threads": 1, "num_labelled": [6, 9], "num_seeds": 2, "num_held_out": 30,
    "num_unlabelled": 40,
    "generator.overrides": {
        "model.block_out_channels": [4, 8], "model.norm_num_groups": 2, "model.attention_head_dim": 4,
        "model.patch_size": 1, "scheduler.num_train_timesteps": 20, "train.num_images_seen": 12,
        "train.batch_size": 6, "train.lr_warmup_steps": 0, "train.evaluate_every": 0, "sample.num_images": 2,
        "sample.num_inference_steps": 2, "watch.nearest": False,
    },
    "generator.of_all": {"train.num_images_seen": 18},
    "drawing": {"start_timestep": 8, "num_per_image": 2, "start_timesteps": [3], "nums_per_image": [1, 3],
                "max_drawn": 18, "num_inference_steps": 2, "micro_batch_size": 8},
    "classic": {"shift": 1.0, "rotation": 10.0, "elastic": 0.5, "smoothness": 2.0},
    "classifier": {"num_steps": 12, "batch_size": 8, "width": 2, "learning_rate": 0.05},
}  # fmt: skip


def stripes(count, seed=0):
    """Level, upright and slanting stripes in noise: (N, 8, 8) uint8 and (N,) int64, labels 0, 1, 2 in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    down, right = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    along = np.stack([down, right, down + right])[labels] + rng.integers(0, 4, (count, 1, 1))
    return (120 * (along // 2 % 2) + rng.integers(0, 100, (count, 8, 8))).astype(np.uint8), labels


def tiny(folder, source, **settings) -> GainConfig:
    overrides = {**copy.deepcopy(TINY), "output_dir": str(folder), "source": str(source), **settings}
    return load_config_of(GainConfig, "gain-mnist", overrides)


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """90 labelled images in an NPZ file."""
    path = tmp_path_factory.mktemp("source") / "stripes.npz"
    images, labels = stripes(90)
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTDDPM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
