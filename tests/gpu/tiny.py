"""Packaged configs made tiny: as many layers and so as many launches, of few channels, on few small images."""

import contextlib
from pathlib import Path

import numpy as np

from fastddpm.config import load_config
from fastddpm.training.run import open_run

CONFIGS = Path(__file__).parents[2] / "configs"
SIZES = {"mnist-paper": (28, 28), "quickstart": (28, 28)}


def images(folder: Path, shape=(32, 32, 3), count: int = 60) -> str:
    """An NPZ of labelled noise; `shape` without a third number is gray."""
    path = folder / f"{'x'.join(map(str, shape))}.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    np.savez(path, images=pixels, labels=np.arange(count) % 3)
    return str(path)


def settings_of(name: str, folder: Path, **more: str) -> dict[str, str]:
    """Settings that make a packaged config of a DDPM run tiny."""
    given = load_config(CONFIGS / f"{name}.yaml", {"output_dir": str(folder), "data.source": "x.npz"})
    widths = [8 * 2**level for level in range(len(given.model.block_out_channels))]
    tiny = {
        "data.source": images(folder, SIZES.get(name, (32, 32, 3))), "data.cache_dir": folder / "cache",
        "output_dir": folder / "run", "data.num_held_out": 20, "data.num_images": 40, "data.train_split": "all",
        "data.held_out_split": "null", "data.image_size": "null", "data.channels": "null", "train.random_crop": "null",
        "model.block_out_channels": widths, "model.norm_num_groups": 4, "model.attention_head_dim": 8,
        "train.batch_size": 4, "train.num_images_seen": 24, "train.log_every": 100, "train.evaluate_every": 0,
        "train.compile": "false", "train.lr_warmup_steps": 0, "sample.num_images": 4, "sample.micro_batch_size": 4,
        "sample.num_inference_steps": 4,
    }  # fmt: skip
    return {key: str(value) for key, value in {**tiny, **more}.items()}


@contextlib.contextmanager
def opened(name: str, folder: Path, precision: str, **more: str):
    """A run of a packaged config, made tiny."""
    given = settings_of(name, folder, **{"train.mixed_precision": precision}, **more)
    with open_run(load_config(CONFIGS / f"{name}.yaml", given)) as run:
        yield run
