"""`fastddpm verify`: a whole folder is whole, and each damaged file is named."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, cli
from tests.conftest import tiny_unet
from tests.training.runs import TINY, some_images


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of two steps with its cache, a saved model, its weights in shards, and images drawn by it, in each form."""
    root = tmp_path_factory.mktemp("verify")
    images = some_images(root / "images")
    settings = {
        **TINY, "train.num_images_seen": "16", "data.num_images": "20", "data.source": str(images),
        "data.cache_dir": str(root / "cache"),
    }  # fmt: skip
    words = [word for name in settings for word in (f"--{name}", settings[name])]
    cli.main(["train", "--config", "mnist-paper", "--out", str(root / "run"), *words])
    pipeline = FastDDPMPipeline(tiny_unet(), FusedDDPMScheduler(num_train_timesteps=20))
    pipeline.save_pretrained(root / "model")
    pipeline.unet.save_pretrained(root / "shards", max_shard_size="3KB")
    few = ["--num_images", "3", "--num_inference_steps", "2"]
    for name in ("drawn", "drawn.npz", "drawn.parquet"):
        cli.main(["sample", str(root / "model"), *few, "--out", str(root / name)])
    return root


def said(capsys, folder):
    """Exit code, and the lines."""
    capsys.readouterr()
    code = 0
    try:
        cli.main(["verify", str(folder)])
    except SystemExit as end:
        code = end.code
    told = capsys.readouterr()
    return code, told.out.splitlines(), told.err


WHOLE = ["run", "cache", "model", "shards", "drawn", "drawn.npz", "drawn.parquet"]


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_whole_is_said_to_be(place, capsys, name):
    code, lines, _ = said(capsys, place / name)
    assert code == 0
    assert len(lines) == 1
    assert lines[0].startswith(f"{place / name}: whole, ")


def flipped(path, at=-10):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_nan(path):
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    next(of for of in tensors.values() if of.is_floating_point()).view(-1)[0] = torch.nan
    save_file(tensors, path)


def without_a_row(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def pointing_outside(path):
    shutil.copy(path.with_name("000000.png"), path.parents[1] / "beside.png")
    path.write_text(path.read_text().replace("000000.png", "../beside.png", 1))


def naming_what_is_outside(path):
    shutil.copy(path.with_name("hashes.npy"), path.parents[1] / "beside.npy")
    path.write_text(path.read_text().replace('"hashes.npy"', '"../beside.npy"'))


def with_more_rows(path):
    with np.load(path) as file:
        np.savez(path, **{**file, "seeds": np.arange(9)})


def described_otherwise(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "block_out_channels": [4, 8, 5000]}))


DAMAGE = [
    ("run", "checkpoints/step-*/model.safetensors", flipped, "is damaged"),
    ("run", "checkpoints/step-*/state.json", halved, "is damaged"),
    ("run", "checkpoints/step-*/manifest.json", halved, "manifest.json cannot be read"),
    ("cache", "*/images.npy", flipped, "the checksum of images.npy is wrong"),
    ("cache", "*/hashes.npy", halved, "hashes.npy has "),
    ("cache", "*/duplicates.npy", lambda path: path.unlink(), "duplicates.npy is missing"),
    ("cache", "*/ingest.json", halved, "ingest.json: cannot be read"),
    ("model", "unet/*.safetensors", halved, "no whole safetensors"),
    ("model", "unet/*.safetensors", with_nan, "has numbers that are not finite"),
    ("model", "unet/config.json", described_otherwise, "it describes a network of"),
    ("shards", "*-00002-of-*.safetensors", lambda path: path.unlink(), "is missing, and "),
    ("shards", "*-00002-of-*.safetensors", with_nan, "has numbers that are not finite"),
    ("drawn", "000001.png", halved, "000001.png: "),
    ("drawn", "000001.png", lambda path: path.unlink(), "000001.png: "),
    ("drawn", "metadata.jsonl", without_a_row, "no row of metadata.jsonl names it"),
    ("drawn", "metadata.jsonl", pointing_outside, "row 1 names a file outside of the folder"),
    ("drawn", "metadata.jsonl", halved, "is no JSON with a file_name"),
    ("drawn.npz", "", with_more_rows, "arrays of different numbers of images"),
    ("drawn.npz", "", halved, "drawn.npz: cannot be read"),
    ("drawn.parquet", "", halved, "drawn.parquet: row 0 cannot be read"),
    ("drawn.parquet", "", lambda path: flipped(path, path.stat().st_size // 4), "drawn.parquet: row 0 cannot be read"),
    ("drawn.npz", "", lambda path: flipped(path, 200), "cannot be read (the checksum of images.npy is wrong)"),
    ("cache", "*/ingest.json", naming_what_is_outside, "beside.npy is missing"),
]


@pytest.mark.parametrize(("name", "file", "damage", "fault"), DAMAGE, ids=[f"{of[0]}-{of[3]}" for of in DAMAGE])
def test_what_is_damaged_is_named(place, tmp_path, capsys, name, file, damage, fault):
    copy = tmp_path / name
    (shutil.copytree if (place / name).is_dir() else shutil.copy)(place / name, copy)
    damaged = next(iter(sorted(copy.glob(file)))) if file else copy
    damage(damaged)
    code, lines, error = said(capsys, copy)
    assert code == 1, error
    assert any(fault in line for line in lines[:-1]), lines
    assert all(str(copy) in line for line in lines)
    assert lines[-1].startswith(f"{copy}: {len(lines) - 1} fault")


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("words")
    code, _, error = said(capsys, tmp_path)
    assert code == 2
    assert "holds nothing to check; wanted a run, a model, *.safetensors, a store, drawn images" in error
