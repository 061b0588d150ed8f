"""A saved folder of a stranger: what cannot be built is refused in a line, before memory is taken for it."""

import json
import shutil
import time

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from fastddpm import FastDDPMPipeline
from fastddpm.pipelines import saved_parts
from fastddpm.training.given_weights import load_source
from tests.conftest import stock_unet, tiny_unet

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module", params=["PaperUNet2DModel", "UNet2DModel"])
def whole(request, tmp_path_factory):
    """A saved pipeline of either network."""
    folder = tmp_path_factory.mktemp("saved") / request.param
    unet = stock_unet() if request.param == "UNet2DModel" else tiny_unet()
    FastDDPMPipeline(unet, DDPMScheduler(num_train_timesteps=20)).save_pretrained(folder)
    return folder


@pytest.fixture
def saved(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "saved")


def change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refused(load, wanted, *arguments):
    before, started = torch.get_num_threads(), time.process_time()
    with pytest.raises(ValueError, match=wanted) as refusal:
        load(*arguments)
    assert "\n" not in str(refusal.value)
    assert time.process_time() - started < 2, "of one second, on a busy machine"
    assert torch.get_num_threads() == before


UNET, SCHEDULER, INDEX = "unet/config.json", "scheduler/scheduler_config.json", "model_index.json"
WILD = [
    (UNET, {"block_out_channels": [2**18] * 2}, "describes a network of [0-9,]+ numbers, and its weights have"),
    (UNET, {"block_out_channels": [2**40]}, "block_out_channels is "),
    (UNET, {"block_out_channels": [-8, 8]}, "block_out_channels is "),
    (UNET, {"block_out_channels": [8] * 1000}, "block_out_channels is "),
    (UNET, {"block_out_channels": 8}, "block_out_channels is 8"),
    (UNET, {"block_out_channels": []}, "config.json cannot be used: "),
    (UNET, {"layers_per_block": 10**6}, "layers_per_block is 1000000"),
    (UNET, {"layers_per_block": "many"}, "layers_per_block is 'many'"),
    (UNET, {"sample_size": 2**20}, "an image takes [0-9,.]+ GiB of memory, and"),
    (UNET, {"sample_size": -8}, "sample_size is -8"),
    (UNET, {"in_channels": 0}, "in_channels is 0"),
    (SCHEDULER, {"num_train_timesteps": 10**9}, "num_train_timesteps is 1000000000"),
    (SCHEDULER, {"num_train_timesteps": 200_000}, "200000 .Input should be less than or equal to 100000"),
    (SCHEDULER, {"num_train_timesteps": -1}, "num_train_timesteps is -1"),
    (SCHEDULER, {"num_train_timesteps": 1.5}, "num_train_timesteps is 1.5"),
    (SCHEDULER, {"beta_schedule": 7}, "Scheduler can be built of it: NotImplementedError"),
    (SCHEDULER, {"beta_start": "x"}, "beta_start is 'x'"),
    (SCHEDULER, {"beta_start": float("nan")}, "beta_start is nan"),
    (SCHEDULER, {"variance_type": [1]}, "Scheduler can be built of it: TypeError"),
    (SCHEDULER, {"trained_betas": 0.5}, "Scheduler can be built of it: TypeError"),
    (INDEX, {"unet": ["fastddpm", ""]}, "it is of a ''; wanted "),
    (INDEX, {"unet": [1, 2]}, "unet is "),
    (INDEX, {"scheduler": "x"}, "scheduler is 'x'"),
    (INDEX, {"scheduler": ["diffusers"]}, "scheduler is "),
    (INDEX, {"unet": ["diffusers", "UNet3DConditionModel"]}, "it is of a 'UNet3DConditionModel'; wanted "),
    (INDEX, {"_class_name": 3}, "_class_name is 3"),
    (INDEX, {"_label_names": ["a"]}, "_label_names is "),
    (INDEX, {"_num_inference_steps": 10**12}, "_num_inference_steps is "),
    (INDEX, {"guidance_scale": "x"}, "guidance_scale is 'x'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values", "wanted"), WILD, ids=lambda value: str(value)[:40])
def test_wild_numbers_are_refused_in_a_line(saved, name, values, wanted):
    change(saved, name, **values)
    refused(FastDDPMPipeline.from_pretrained, wanted, saved)
    if name == UNET:
        refused(load_source, wanted, str(saved))


@pytest.mark.parametrize("name", [UNET, SCHEDULER, INDEX])
@pytest.mark.parametrize("text", ["[]", "3", "{", "[" * 100_000, "\0"], ids=lambda text: text[:4])
def test_what_is_no_object_is_refused_in_a_line(saved, name, text):
    (saved / name).write_text(text)
    refused(FastDDPMPipeline.from_pretrained, f"{name} cannot be read", saved)


def test_an_image_that_memory_does_not_hold_is_refused(saved, monkeypatch):
    FastDDPMPipeline.from_pretrained(saved)
    monkeypatch.setattr(saved_parts.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    refused(FastDDPMPipeline.from_pretrained, "an image takes 0.0 GiB of memory, and 0.0 are free", saved)


def shards(folder, ending):
    """The weights in shards whose names end in `ending`, pickled where that is not safetensors."""
    unet = UNet2DModel.from_pretrained(folder / "unet")
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", max_shard_size="20KB")
    path = folder / f"{WEIGHTS}.index.json"
    index = json.loads(path.read_text())
    assert len(set(index["weight_map"].values())) > 1
    for shard in set(index["weight_map"].values()):
        (folder / "unet" / shard).rename(folder / "unet" / shard.replace(".safetensors", ending))
    path.write_text(json.dumps(index).replace(".safetensors", ending))


def test_shards_are_safetensors(tmp_path):
    FastDDPMPipeline(stock_unet(), DDPMScheduler(num_train_timesteps=20)).save_pretrained(tmp_path / "saved")
    shards(tmp_path / "saved", ".safetensors")
    FastDDPMPipeline.from_pretrained(tmp_path / "saved")
    load_source(str(tmp_path / "saved"))


@pytest.mark.parametrize("ending", [".bin", ".pt", "", ".safetensors.bin", ".gguf"])
def test_shards_of_other_names_are_not_read(tmp_path, ending, monkeypatch):
    FastDDPMPipeline(stock_unet(), DDPMScheduler(num_train_timesteps=20)).save_pretrained(tmp_path / "saved")
    shards(tmp_path / "saved", ending)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    for load in (FastDDPMPipeline.from_pretrained, load_source):
        refused(load, "index.json cannot be used: it names files that are no .safetensors", str(tmp_path / "saved"))
