"""Folders that version 0.1 saved still open: tests/saved/0.1.zip holds a tiny run and a tiny DCGAN as it wrote them."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from diffusers import DiffusionPipeline

from fastddpm import FastDDPMPipeline, cli
from fastddpm.pipelines.dcgan import DCGANPipeline

SAVED = Path(__file__).parent / "saved" / "0.1.zip"


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Both, unpacked, and a store of images of their own."""
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))
    zipfile.ZipFile(SAVED).extractall(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("name", ["run-0.1", "dcgan-0.1"])
def test_a_folder_of_version_0_1_is_drawn_from(saved, name):
    out = saved / "samples.npz"
    cli.main(["sample", str(saved / name), "--num_images", "3", "--out", str(out), "--num_threads", "1"])
    assert np.load(out)["images"].shape == (3, 8, 8)


def test_a_run_of_version_0_1_loads_by_every_documented_way(saved):
    seeds = {"seeds": [1, 2], "num_inference_steps": 3, "output_type": "np"}
    ours = FastDDPMPipeline.from_pretrained(saved / "run-0.1")(**seeds).images
    assert ours.shape == (2, 8, 8, 1)
    stock = DiffusionPipeline.from_pretrained(saved / "run-0.1")
    assert len(stock(batch_size=2, num_inference_steps=3).images) == 2


def test_a_dcgan_of_version_0_1_names_a_module_that_has_moved(saved):
    index = (saved / "dcgan-0.1" / "model_index.json").read_text()
    assert "fastddpm.baselines.dcgan" in index
    assert DCGANPipeline.from_pretrained(saved / "dcgan-0.1").image_shape == (1, 8, 8)


@pytest.mark.parametrize(("name", "verb"), [
    ("run-0.1", "train"), pytest.param("dcgan-0.1", "dcgan", marks=pytest.mark.slow)
])  # fmt: skip
def test_training_goes_on_where_version_0_1_stopped(saved, name, verb, capsys):
    folder = saved / name
    words = ["--config", str(folder / "config.yaml"), "--out", str(folder)]
    before = {path: path.read_bytes() for path in (folder / "checkpoints").rglob("*.safetensors")}
    cli.main([verb, *words])
    assert "going on from step" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (folder / "checkpoints").rglob("*.safetensors")} == before
