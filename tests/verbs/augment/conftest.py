"""Labelled images, models and runs of 8x8 pixels to augment with."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fastddpm import FastDDPMPipeline, cli
from tests.conftest import class_folders, tiny_unet


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))


def labelled_images(counts=(6, 3, 2), seed=0):
    """Noise, lighter with the label: (N, 1, 8, 8) uint8 and (N,) int64, of each label as many as `counts` says."""
    labels = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).integers(0, 80, (len(labels), 1, 8, 8))
    return torch.from_numpy((noise + 80 * labels[:, None, None, None]).astype(np.uint8)), torch.from_numpy(labels)


@pytest.fixture
def data(tmp_path):
    """The folder of eleven images in three class folders, 0: six, 1: three, 2: two."""
    return class_folders(tmp_path / "data", *labelled_images())


@pytest.fixture
def model(scheduler, tmp_path):
    """The folder of a pipeline of three classes, 8x8x1, twenty timesteps."""
    FastDDPMPipeline(tiny_unet(num_class_embeds=4), scheduler).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def plain_model(scheduler, tmp_path):
    """The same without classes."""
    FastDDPMPipeline(tiny_unet(), scheduler).save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.fixture
def augment(model, data, tmp_path):
    """`fastddpm augment` in this process, from timestep 5, micro-batches of four."""

    def run(*words, model=model, data=data, out="out"):
        common = ["--micro_batch_size", 4, "--num_threads", 1, "--out", tmp_path / out]
        start = [] if "--start_timesteps" in words else ["--start_timesteps", 5]
        cli.main(list(map(str, ["augment", model, data, *words, *start, *common])))
        return tmp_path / out

    return run


@pytest.fixture
def refused(augment, capsys):
    """The one line that such a command ends with."""

    def run(*words, **places) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            augment(*words, **places)
        assert stop.value.code == 2
        return capsys.readouterr().err.split("fastddpm: error: ")[1].strip()

    return run


def rows_in(folder):
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def pixels(folder, row):
    return np.asarray(Image.open(folder / row["file_name"]))


def record_of(out):
    return json.loads(out.with_name(out.name.removesuffix(".parquet") + ".json").read_text())


def every_byte(where):
    return {str(p.relative_to(where)): p.read_bytes() for p in sorted(where.rglob("*")) if p.is_file()}
