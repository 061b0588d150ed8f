"""Images that `fastddpm` writes are a data set on the Hub, which `load_dataset` and training read over HTTP."""

import json
import shutil

import numpy as np
import pytest

from fastddpm import cli
from fastddpm.hub import push_images
from fastddpm.verbs.augment.augment import augment
from fastddpm.verbs.augment.request import AugmentRequest
from fastddpm.verbs.sample.request import SampleRequest, VariationRequest
from fastddpm.verbs.sample.samples import sample
from fastddpm.verbs.sample.variations import vary
from tests.hub.conftest import run_python, sent, train_there, writes


@pytest.fixture
def drawn(signed_in, trained, tmp_path):
    """A data set of 24 samples in the repository ann/drawn; their seeds and pixels."""
    path = tmp_path / "images.parquet"
    sample(SampleRequest(model=str(trained), out=path, num_images=24, num_inference_steps=3))
    sample(SampleRequest(model=str(trained), out=tmp_path / "same.npz", num_images=24, num_inference_steps=3))
    assert push_images(path, "ann/drawn", private=True).changed
    assert not push_images(path, "ann/drawn").changed
    return np.load(tmp_path / "same.npz")["images"]


def test_images_load_with_load_dataset(hub, drawn, tmp_path):
    code = """
import json
import numpy as np
from datasets import load_dataset
rows = load_dataset("ann/drawn", split="train")
column = next(name for name, kind in rows.features.items() if type(kind).__name__ == "Image")
print(json.dumps([np.asarray(row[column]).tolist() for row in rows]))
"""
    pixels = json.loads(run_python(code, hub.env(tmp_path / "home", "hf_ann_read")))
    assert np.array_equal(np.array(pixels), drawn.reshape(24, 8, 8))


def test_a_folder_of_variations_is_a_data_set_too(signed_in, trained, images, tmp_path):
    """With a row of its metadata beside each image, whatever its source is called, and no path of the machine in it."""
    pictures = [str(tmp_path / name) for name in ("part_test_1.png", "plain.png")]
    for source, picture in zip(images.rglob("*.png"), pictures, strict=False):
        shutil.copy(source, picture)
    folder = tmp_path / "variations"
    vary(
        VariationRequest(
            model=str(trained), images=pictures, out=folder, start_timesteps=(5, 20), num_images=1,
            num_inference_steps=3,
        )
    )  # fmt: skip
    cli.main(["push", str(folder), "ann/varied", "--license", "cc0-1.0"])
    files = signed_in.files("ann/varied", repo_type="dataset")
    assert sum(name.endswith(".png") for name in files) == 4
    assert str(tmp_path).encode() not in files["images/metadata.jsonl"]
    assert b"license: cc0-1.0" in files["README.md"]
    code = (
        "from datasets import load_dataset\n"
        "rows = load_dataset('ann/varied', split='train')\n"
        "print(sorted(row['start_timestep'] for row in rows), rows[0]['image'].size)"
    )
    assert run_python(code, signed_in.env(tmp_path / "home")) == "[5, 5, 20, 20] (8, 8)"


def test_class_folders_of_an_augmented_set_are_a_data_set_too(signed_in, trained, images, tmp_path):
    folder = tmp_path / "augmented"
    for label in ("0", "1"):
        (tmp_path / "in" / label).mkdir(parents=True)
    for i, picture in enumerate(sorted(images.rglob("*.png"))[:4]):
        shutil.copy(picture, tmp_path / "in" / str(i % 2) / f"{i}.png")
    augment(AugmentRequest(model=str(trained), data=str(tmp_path / "in"), out=folder, start_timesteps=(3,)))
    cli.main(["push", str(folder), "ann/augmented"])
    files = signed_in.files("ann/augmented", repo_type="dataset")
    assert (
        sorted(name.rpartition("/")[0] for name in files if name.endswith(".png"))
        == ["images/0"] * 2 + ["images/1"] * 2
    )
    assert str(tmp_path).encode() not in files["images/metadata.jsonl"]
    code = (
        "from datasets import load_dataset\n"
        "rows = load_dataset('ann/augmented', split='train')\n"
        "print(sorted(row['label'] for row in rows), rows[0]['image'].size)"
    )
    assert run_python(code, signed_in.env(tmp_path / "home")) == "[0, 0, 1, 1] (8, 8)"


def test_what_are_no_images_is_refused(signed_in, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images of fastddpm"):
        push_images(tmp_path / "empty", "ann/none")
    assert not writes(signed_in)


@pytest.mark.slow
@pytest.mark.parametrize("streaming", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_training_reads_them_by_their_name_on_the_hub(hub, drawn, images, tmp_path, streaming):
    num_before = len(hub.requests)
    settings = {
        "data.source": "ann/drawn", "data.cache_dir": str(tmp_path / "cache"), "data.streaming": streaming,
        "data.image_size": "8", "data.channels": "1",
        "push_to_hub": "ann/model",
    }  # fmt: skip
    done = train_there(hub.env(tmp_path / "home", "hf_ann"), tmp_path / "run", images, **settings)
    assert done.returncode == 0, done.stderr
    assert any("/storage/datasets/ann/drawn/" in request.path for request in hub.requests[num_before:])
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert (data["source"], data["hub_dataset"], data["num_images"]) == ("ann/drawn", "ann/drawn", 24)
    card = hub.files("ann/model")["README.md"].decode()
    assert "datasets:\n- ann/drawn\n" in card
    assert "ann/drawn: 24 images" in card
    assert "source: ann/drawn" in card


@pytest.mark.slow
def test_data_set_that_may_not_be_seen_is_one_line(hub, drawn, images, tmp_path):
    settings = {"data.source": "ann/drawn", "data.cache_dir": str(tmp_path / "cache")}
    done = train_there(hub.env(tmp_path / "home"), tmp_path / "run", images, **settings)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("fastddpm: error: data.source ann/drawn: there is no such file or folder here, and")
    assert not sent(hub, "GET", "/storage/datasets/")
