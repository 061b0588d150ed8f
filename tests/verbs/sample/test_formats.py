"""What `fastddpm sample` writes, read by numpy, Pillow, `datasets` and our own data.source."""

import json

import datasets
import numpy as np
import pytest
from PIL import Image

from fastddpm import FastDDPMPipeline
from fastddpm.config import load_config
from fastddpm.data import load_splits
from fastddpm.verbs.sample.formats import MAX_GRID_IMAGES

SEEDS = list(range(5, 15))


@pytest.fixture
def as_a_source(tmp_path):
    """(images (N, C, H, W) in the order of the source, labels) as our own trainer reads them."""

    def read(path):
        settings = {"data.source": str(path), "data.cache_dir": str(tmp_path / "cache"), "output_dir": "none"}
        data = load_splits(load_config(None, settings).data, seed=0, show_progress=False).train
        order = sorted(range(len(data)), key=lambda i: data.image(i).tobytes())
        return np.stack([data.image(i) for i in order]), data.num_classes

    return read


def by_bytes(images):
    """(N, H, W) or (N, H, W, C) as (N, C, H, W), sorted as `as_a_source` sorts."""
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return np.stack(sorted(images, key=lambda image: np.ascontiguousarray(image).tobytes()))


def pixels_of(model):
    """The same images by the Python pipeline: (N, H, W) or (N, H, W, C), uint8."""
    pipeline = FastDDPMPipeline.from_pretrained(model)
    images = pipeline(seeds=SEEDS, num_inference_steps=4, micro_batch_size=4).images
    return np.stack([np.asarray(image) for image in images])


@pytest.mark.parametrize("kind", ["model", "rgb_model"])
def test_every_format_holds_the_pipelines_images(kind, request, tmp_path, draw, as_a_source):
    model, has_labels = request.getfixturevalue(kind), kind == "model"
    for name in ("folder", "x.npz", "x.parquet"):
        draw(model, tmp_path / "out" / name, "--seed", 5)
    with np.load(tmp_path / "out" / "x.npz") as archive:
        images, found = archive["images"], {name: archive[name].tolist() for name in archive if name != "images"}
    labels = [seed % 3 for seed in SEEDS]
    told = [json.loads(row) for row in found.pop("metadata")]
    assert found == ({"seeds": SEEDS, "labels": labels} if has_labels else {"seeds": SEEDS})
    assert images.shape == ((10, 8, 8) if has_labels else (10, 8, 8, 3))
    assert images.std() > 10, "empty pictures would prove nothing"
    assert np.abs(images.astype(int) - pixels_of(model)).max() <= 1, "channels_last rounds otherwise"

    table = datasets.load_dataset("parquet", data_files=str(tmp_path / "out" / "x.parquet"), split="train")
    assert isinstance(table.features["image"], datasets.Image)
    assert table["seed"][:] == SEEDS
    assert ("label" in table.features) == has_labels
    assert not has_labels or table["label"][:] == labels
    assert np.array_equal(np.stack([np.asarray(row["image"]) for row in table]), images)

    folder = tmp_path / "out" / "folder"
    files = [f"{seed:06d}.png" for seed in SEEDS]
    assert sorted(p.name for p in folder.iterdir() if p.name[0] != ".") == [*files, "metadata.jsonl"]
    assert np.array_equal(np.stack([np.asarray(Image.open(folder / name)) for name in files]), images)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == files
    assert rows == told == [json.loads(row) for row in table["metadata"]]
    assert rows[1] == {
        "file_name": "000006.png", "seed": 6, "label": 0 if has_labels else None, "scheduler": "ddpm", "steps": 4,
        "guidance": 1.0, "precision": "fp32", "model": str(model),
    }  # fmt: skip
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
    assert loaded["seed"][:] == SEEDS

    for name in ("folder", "x.npz", "x.parquet"):
        read, num_classes = as_a_source(tmp_path / "out" / name)
        assert np.array_equal(read, by_bytes(images)), name
        assert num_classes == (3 if has_labels else None)
    assert not list((tmp_path / "out").rglob("*part*")), "nothing is left over"


def test_grid_is_one_picture(model, tmp_path, draw):
    draw(model, tmp_path / "new" / "grid.png")
    size = Image.open(tmp_path / "new" / "grid.png").size
    assert size[0] > size[1] > 100, "four columns, three rows"
    draw(model, tmp_path / "new" / "grid.png", "--seed", 3)  # a grid is drawn over
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["grid.png"]


def test_grid_of_too_many_is_refused(model, tmp_path, refused):
    line = refused(model, tmp_path / "grid.png", "--num_images", MAX_GRID_IMAGES + 1)
    assert line == (
        "a .png is one grid, of at most 2,500 images of 8x8, and 2,501 are asked for; give --out a folder (a PNG an "
        "image), or a file that ends in .npz or .parquet"
    )


def test_other_endings_are_refused(model, tmp_path, refused):
    line = refused(model, tmp_path / "x.jpg")
    assert line.endswith("x.jpg; wanted a folder, or a file that ends in .png, .npz, .parquet")
