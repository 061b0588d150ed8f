"""Training from Python, and from a notebook."""

import subprocess
import sys

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

import fastddpm
from fastddpm.process import counted

FIVE_LINES = """
import fastddpm
config = fastddpm.load_config("quickstart", {settings})
run = fastddpm.train(config)
pipeline = fastddpm.FastDDPMPipeline.from_pretrained(run)
images = pipeline(class_labels=[0, 1], num_inference_steps=2).images
"""
SMALL = {
    "model.block_out_channels": [8, 16], "model.attention_head_dim": 8, "train.batch_size": 8, "data.num_held_out": 2,
    "train.num_images_seen": 16, "train.mixed_precision": "no", "sample.num_images": 2, "sample.num_inference_steps": 2,
}  # fmt: skip


@pytest.fixture
def settings(image_folder, tmp_path):
    places = {"data.source": str(image_folder), "data.cache_dir": str(tmp_path / "cache")}
    return {**SMALL, **places, "output_dir": str(tmp_path / "run")}


def test_five_lines_train_and_draw(settings):
    found = {}
    exec(FIVE_LINES.format(settings=repr(settings)), found)
    assert [image.size for image in found["images"]] == [(8, 8)] * 2


@pytest.mark.slow
def test_a_process_may_train_twice_in_two_precisions_and_is_left_as_it_was(settings, tmp_path):
    threads = torch.get_num_threads()
    for precision in ("no", "bf16"):
        changed = {"train.mixed_precision": precision, "output_dir": str(tmp_path / precision), "train.num_threads": 2}
        fastddpm.train(fastddpm.load_config("quickstart", {**settings, **changed}))
    assert torch.get_num_threads() == threads
    assert not AcceleratorState._shared_state


def test_the_accelerator_of_a_process_decides_its_precision(settings, tmp_path):
    own = Accelerator(cpu=True, mixed_precision="bf16")
    with pytest.raises(ValueError, match="'no', but this process has an Accelerator of 'bf16'; use 'bf16' or auto"):
        fastddpm.train(fastddpm.load_config("quickstart", settings))
    auto = {**settings, "train.mixed_precision": "auto", "output_dir": str(tmp_path / "auto")}
    fastddpm.train(fastddpm.load_config("quickstart", auto))
    assert own.mixed_precision == "bf16", "and is still there"


def test_a_partial_state_that_was_there_stays(settings):
    state = PartialState(cpu=True)
    fastddpm.train(fastddpm.load_config("quickstart", settings))
    assert state.process_index == 0


def test_paths_are_settings_too_and_numbers_are_finite(settings, tmp_path):
    assert fastddpm.load_config("quickstart", {"output_dir": tmp_path}).output_dir == str(tmp_path)
    with pytest.raises(ValueError, match="got a setting of type object"):
        fastddpm.load_config("quickstart", {"seed": object()})
    for name, value in (("learning_rate", ".nan"), ("adam_betas", "[0.9, .inf]")):
        with pytest.raises(ValueError, match=f"train.{name} is .*; it must be finite"):
            fastddpm.load_config("quickstart", {f"train.{name}": value})


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_notebook_launcher_trains_on_cpu(settings, num_processes):
    settings = {**settings, "train.num_processes": num_processes}
    code = (
        "import fastddpm\nfrom accelerate import notebook_launcher\n"
        f"config = fastddpm.load_config('quickstart', {settings!r})\n"
        f"notebook_launcher(fastddpm.train, (config,), num_processes={num_processes})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"cpu, {counted(num_processes, 'process')}" in done.stdout
    assert len(fastddpm.FastDDPMPipeline.from_pretrained(settings["output_dir"])(num_inference_steps=1).images) == 1


def test_trained_run_shows_its_samples_in_a_notebook(tmp_path, settings):
    folder = fastddpm.train(fastddpm.load_config("quickstart", settings))
    assert folder == tmp_path / "run"
    assert folder._repr_png_() == (tmp_path / "run" / "samples.png").read_bytes()
    assert (folder / "unet")._repr_png_() is None
