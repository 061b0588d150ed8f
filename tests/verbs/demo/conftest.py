"""A tiny trained run, opened in this process; bad pictures."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from fastddpm.verbs.demo.opened_model import opened
from fastddpm.verbs.demo.request import DemoRequest
from tests.conftest import class_folders
from tests.training.runs import train_here


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of class folders "0", "1", "2": 24 grayscale pictures of 8x8."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    images = torch.from_numpy(rng.integers(0, 256, (24, 1, 8, 8), dtype=np.uint8))
    return class_folders(folder, images, torch.arange(24) % 3)


@pytest.fixture(scope="session")
def run_folder(pictures, tmp_path_factory):
    """A finished run of three classes, 8x8x1, 20 timesteps, with held-out images."""
    folder = tmp_path_factory.mktemp("run") / "tiny"
    cache = str(tmp_path_factory.mktemp("cache"))
    settings = {"model.class_conditional": "true", "sample.guidance_scale": "1.5"}
    train_here(folder, pictures, **settings, **{"data.cache_dir": cache})
    return folder


@pytest.fixture(scope="session")
def run(run_folder):
    with opened(DemoRequest(model=str(run_folder), num_threads=1)) as found:
        yield found


@pytest.fixture(scope="session")
def normal(tmp_path_factory):
    """30 dark pictures of 8x8."""
    path = tmp_path_factory.mktemp("normal") / "normal.npz"
    np.savez(path, images=np.random.default_rng(5).integers(0, 60, (30, 8, 8), dtype=np.uint8))
    return path


@pytest.fixture
def picture(tmp_path):
    """A picture of the model's size."""
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def png_of(width, height):
    """The beginning of a PNG of that many pixels, which holds none."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))


@pytest.fixture
def bad_pictures(tmp_path, picture):
    """name -> (file, part of the reason that it is refused for)."""
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "text.png").write_text("no picture at all")
    (folder / "cut.png").write_bytes(picture.read_bytes()[:-30])
    (folder / "empty.png").touch()
    (folder / "large.png").write_bytes(png_of(9000, 9000))
    (folder / "bomb.png").write_bytes(png_of(60_000, 60_000))
    frames = [Image.new("L", (8, 8), value) for value in (0, 255)]
    frames[0].save(folder / "moves.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(folder / "deep.png")
    reasons = {
        "text.png": "is no image in a format that Pillow reads", "cut.png": "cannot be decoded",
        "empty.png": "is empty (0 bytes)", "large.png": "has 9000x9000 pixels, the limit is 67,108,864",
        "bomb.png": "has more pixels than the limit of 67,108,864", "moves.gif": "is animated or has several pages (2)",
        "deep.png": "has more than 8 bits a channel",
    }  # fmt: skip
    return {name: (folder / name, reason) for name, reason in reasons.items()}
