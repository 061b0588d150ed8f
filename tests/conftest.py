"""Tiny real models and images, shared by the tests."""

import os
import re

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: no test asks a network

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import UNet2DModel
from PIL import Image

from fastddpm import FusedDDPMScheduler, PaperUNet2DModel

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """A test of a fault has its number in its name: `-m fault` picks all of them."""
    for item in items:
        if re.match(r"test_f\d+_", item.name):
            item.add_marker(pytest.mark.fault)


def pytest_terminal_summary(terminalreporter):
    """How many tests in a browser ran, so that a machine without one does not pass unseen."""
    reports = [each for key in ("passed", "failed", "skipped") for each in terminalreporter.stats.get(key, [])]
    asked = [each for each in reports if "browser" in each.keywords]
    why = {each.longrepr[2].removeprefix("Skipped: ") for each in asked if each.skipped}
    num_run = sum(each.when == "call" and not each.skipped for each in asked)
    if asked:
        terminalreporter.write_line(f"browser: {num_run} ran{': ' * bool(why)}{'; '.join(sorted(why))}")


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Accelerate keeps one state a process; a test must not find that of the one before it."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def tiny_unet(**options) -> PaperUNet2DModel:
    """Two levels, 8x8x1, seeded; in eval mode."""
    torch.manual_seed(0)
    settings = {"sample_size": 8, "block_out_channels": (4, 8), "time_embedding_dim": 8, **options}
    return PaperUNet2DModel(**settings).eval()


def stock_unet(**options) -> UNet2DModel:
    """Diffusers' own, of the same size."""
    torch.manual_seed(0)
    settings = {
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 8), "layers_per_block": 1,
        "norm_num_groups": 4, "down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2,
    }  # fmt: skip
    return UNet2DModel(**{**settings, **options}).eval()


def class_folders(folder, images, labels):
    """A folder of PNG files, each in the folder of its label.

    Args:
        images: (N, 1, H, W), uint8.
        labels: (N,), int64.
    """
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / str(label) / f"{i:03d}.png")
    return folder


@pytest.fixture
def unet() -> PaperUNet2DModel:
    return tiny_unet()


@pytest.fixture
def labelled_unet() -> PaperUNet2DModel:
    return tiny_unet(num_class_embeds=4)


@pytest.fixture
def scheduler() -> FusedDDPMScheduler:
    return FusedDDPMScheduler(num_train_timesteps=20, beta_end=0.5)


@pytest.fixture
def image_folder(tmp_path):
    """24 grayscale 8x8 PNG images in two class folders."""
    rng = np.random.default_rng(0)
    for label in ("dark", "light"):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 100, (8, 8)) + (150 if label == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
    return tmp_path / "images"
