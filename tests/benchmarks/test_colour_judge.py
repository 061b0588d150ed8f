"""Splits and judge of the colour benchmark, at tiny size."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("torchmetrics", reason='the judge needs it: pip install -e ".[benchmarks]"')
from benchmarks import colour_judge, colour_quality
from benchmarks.colour_set import flattened, read_images, write_splits
from fastddpm.measures.unlabelled_judge import UnlabelledFeatures, train_unlabelled


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """(N, 16, 16, 3): a coloured rectangle on white each."""
    rng = np.random.default_rng(seed)
    images = np.full((count, 16, 16, 3), 255, np.uint8)
    for image in images:
        top, left = rng.integers(0, 10, 2)
        height, width = rng.integers(4, 12, 2)
        image[top : top + height, left : left + width] = rng.integers(0, 255, 3)
    return images


def tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


@pytest.fixture(scope="module")
def judge() -> UnlabelledFeatures:
    return train_unlabelled(tensor(pictures(64)), num_steps=20, batch_size=32, show_progress=False)


def test_splits_share_no_picture_and_drop_duplicates(tmp_path):
    drawn = pictures(12)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for i, image in enumerate([*drawn, drawn[3]]):
            Image.fromarray(image).save(tmp_path / f"{i}.png")
            archive.write(tmp_path / f"{i}.png")
    facts = write_splits(tmp_path / "set.zip", tmp_path / "out", 16, {"judge": 3, "reference": 4})
    parts = [read_images(tmp_path / "out" / name) for name in ("judge", "reference", "train")]
    assert [len(part) for part in parts] == [3, 4, 5]
    assert facts["exact duplicates"] == 1
    assert len({image.tobytes() for part in parts for image in part}) == 12


def test_too_few_pictures_are_refused(tmp_path):
    Image.fromarray(pictures(1)[0]).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match="holds 1 different pictures; the judge and its reference take 7"):
        write_splits(tmp_path, tmp_path / "out", 16, {"judge": 3, "reference": 4})


def test_transparent_pixels_become_white():
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    assert (flattened(clear, 4) == 255).all()


def test_the_judge_is_trained_once_and_kept(judge, tmp_path, monkeypatch):
    (tmp_path / "judge").mkdir()
    for i, image in enumerate(pictures(64)):
        Image.fromarray(image).save(tmp_path / "judge" / f"{i:02d}.png")
    monkeypatch.setattr(
        colour_judge, "train_unlabelled", lambda images: train_unlabelled(images, num_steps=3, show_progress=False)
    )
    first = colour_judge.judge_of(tmp_path)
    assert first.facts["num_images"] == 64
    (tmp_path / "judge").rename(tmp_path / "gone")
    assert colour_judge.judge_of(tmp_path).sha256() == first.sha256()


def test_distances_grow_with_the_damage(judge):
    reference, reals = tensor(pictures(200, seed=1)), pictures(200, seed=2)
    scores = [
        colour_judge.distances(judge, tensor(images), reference)
        for images in (reals, colour_judge.noisy(reals, 40), colour_judge.noisy(reals, 160))
    ]
    assert scores[0]["fid"] < scores[1]["fid"] < scores[2]["fid"]
    assert scores[0]["kid"] < scores[2]["kid"]


def test_a_set_is_no_distance_from_itself(judge):
    images = tensor(pictures(100))
    assert abs(colour_judge.distances(judge, images, images)["fid"]) < 1e-2


def test_mixed_tiles_keep_their_place():
    images = pictures(10)
    mixed = colour_judge.mixed(images, 8, 16)
    tops = {image[:8].tobytes() for image in images}
    assert all(image[:8].tobytes() in tops for image in mixed)
    assert not np.array_equal(mixed, images)


def test_copies_of_training_pictures_show():
    training = tensor(pictures(20))
    copies = colour_quality.memorization(training[:10], training)["nearest_training"]
    others = colour_quality.memorization(tensor(pictures(10, seed=5)), training)["nearest_training"]
    assert max(copies) < 0.5 < min(others)
