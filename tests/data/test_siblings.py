import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from fastddpm.config import DataConfig
from fastddpm.data import ingest
from fastddpm.data.siblings import near_copies


def textures(count, side=40):
    """Different smooth pictures in colour, (count, 3, side, side)."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return (functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1) * 255).byte().numpy()


def shots(count, num_shots):
    """Parts, each several times: moved by up to 2 pixels of 32, lighter or darker, with noise."""
    rng = np.random.default_rng(1)
    found = []
    for part in textures(count):
        for _ in range(num_shots):
            top, left = rng.integers(0, 3, 2)
            seen = part[:, top : top + 32, left : left + 32] * rng.uniform(0.9, 1.1) + rng.normal(0, 5, (3, 32, 32))
            found.append(seen.clip(0, 255).astype(np.uint8))
    return np.stack(found)


@pytest.fixture(scope="module")
def digits():
    return np.asarray(ingest(DataConfig(source="digits"), show_progress=False).images)[:2000]


def by_jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image[0]).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file))[None]


CHANGES = {
    "noise": lambda images: np.clip(images + np.random.default_rng(0).normal(0, 8, images.shape), 0, 255),
    "a pixel's move": lambda images: np.roll(images, (1, -1), (2, 3)),
    "mirror": lambda images: images[..., ::-1],
    "brightness": lambda images: images * 0.8,
    "jpeg": lambda images: np.stack([by_jpeg(image) for image in images]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_image_is_found(digits, name):
    changed = CHANGES[name](digits[:200]).astype(np.uint8)
    group = near_copies(np.concatenate([digits, changed]))
    assert np.mean(group[len(digits) :] == group[:200]) >= 0.97


def test_different_images_are_not_taken_for_near_copies(digits):
    """Of handwritten digits, many of which are nearly alike, a few in a hundred may be; of textures none."""
    assert len(np.unique(near_copies(digits))) > 0.97 * len(digits)
    assert np.array_equal(near_copies(textures(200)), np.arange(200))


@pytest.mark.parametrize(("count", "num_shots"), [(40, 8), (5, 8), (8, 40)])
def test_shots_of_a_part_stay_together(count, num_shots):
    group = near_copies(shots(count, num_shots)).reshape(count, num_shots)
    assert np.mean(group == group[:, :1]) > 0.95
    assert np.array_equal(group[:, 0], np.arange(count) * num_shots), "no part is taken for another"


def test_images_of_one_shape_in_other_colours_are_different():
    gray = textures(30).mean(1, keepdims=True)
    red, blue = (gray * np.array(tint)[:, None, None] for tint in ((1.0, 0.6, 0.6), (0.6, 0.6, 1.0)))
    assert np.array_equal(near_copies(np.concatenate([red, blue]).astype(np.uint8)), np.arange(60))


def test_few_or_empty_images_are_themselves():
    assert near_copies(np.zeros((3, 1, 8, 8), np.uint8)).tolist() == [0, 1, 2]
    black = np.stack([np.full((1, 8, 8), level, np.uint8) for level in range(20)])
    assert near_copies(black).tolist() == list(range(20))
