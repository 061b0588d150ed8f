"""micro_batch_size auto, and steps that do not fit into memory."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import fastddpm
from fastddpm.config import TrainConfig
from fastddpm.process import borrowed_process
from fastddpm.training import checkpoint, microbatch
from fastddpm.training.draw import draw_samples
from fastddpm.training.microbatch import available_bytes, explained_out_of_memory, fits_on_device, largest
from fastddpm.training.run import open_run
from fastddpm.training.split import Split, micro_batch_sizes
from tests.training.runs import start

SETTINGS = {
    "model.block_out_channels": [4, 8], "model.time_embedding_dim": 8, "scheduler.num_train_timesteps": 20,
    "scheduler.beta_end": 0.5, "train.batch_size": 12, "train.num_images_seen": 24, "train.mixed_precision": "no",
    "train.num_threads": 1, "train.micro_batch_size": "auto", "sample.num_images": 2, "sample.num_inference_steps": 2,
}  # fmt: skip


@pytest.fixture
def config(image_folder, tmp_path):
    def load(**settings):
        named = {"output_dir": str(tmp_path / "run"), "data.cache_dir": str(tmp_path / "cache")}
        return fastddpm.load_config(None, {**SETTINGS, **named, "data.source": str(image_folder), **settings})

    return load


def opened(config):
    with borrowed_process(), open_run(config) as run:
        return run


def leave_free(monkeypatch, num_bytes):
    monkeypatch.setattr(microbatch, "available_bytes", lambda: num_bytes)


def test_sizes_are_the_divisors_that_leave_every_process_one():
    assert micro_batch_sizes(12, 1) == [12, 6, 4, 3, 2, 1]
    assert micro_batch_sizes(12, 4) == [3, 2, 1]
    with pytest.raises(ValueError, match="4 processes share 3 micro-batches"):
        Split.of(TrainConfig(batch_size=3, micro_batch_size="auto"), 0, 4)


def test_the_first_that_fits_is_the_largest():
    tried = []

    def fits(size):
        tried.append(size)
        return size <= 4

    assert largest([12, 6, 4, 3], fits) == 4
    assert tried == [12, 6, 4]
    assert largest([12, 6], lambda size: False) == 6


def test_auto_takes_what_the_memory_allows(config, monkeypatch):
    """With room for exactly the expected need of 4 images, 6 do not fit."""
    run = opened(config(**{"train.micro_batch_size": 4}))
    need = run.cost.memory.total - run.cost.memory.weights
    for spare, size in ((1, 4), (-1, 3), (10**9, 12)):
        folder = str(run.folder) + str(spare)
        leave_free(monkeypatch, int(need / microbatch.SHARE_OF_FREE) + spare * 10)
        chosen = opened(config(output_dir=folder))
        assert chosen.split.micro_batch_size == size
        assert json.loads((chosen.folder / "measured.json").read_text())["micro_batch_size"] == size


@pytest.mark.slow
def test_what_was_found_stays_while_the_run_has_checkpoints(config, monkeypatch, capsys):
    leave_free(monkeypatch, 0)
    run = opened(config())
    assert run.split.micro_batch_size == 1
    assert "train.micro_batch_size auto: 1, the largest divisor of 12 whose expected need" in capsys.readouterr().out
    leave_free(monkeypatch, 10**12)
    fastddpm.train(config(**{"train.num_images_seen": 12}))
    assert "batch 12 in 1 of 12" in capsys.readouterr().out, "no checkpoint: found anew"
    leave_free(monkeypatch, 0)
    fastddpm.train(config())
    out = capsys.readouterr().out
    assert "train.micro_batch_size auto: 12, as when the run began" in out
    assert "batch 12 in 1 of 12" in out
    fastddpm.train(config(**{"train.micro_batch_size": 4, "train.num_images_seen": 36}))
    assert "train.micro_batch_size was 'auto', now 4" in capsys.readouterr().out, "as an out-of-memory error advises"


def test_auto_is_the_same_run_as_the_size_it_finds(config, monkeypatch, tmp_path):
    run = fastddpm.train(config())
    size = json.loads((run / "measured.json").read_text())["micro_batch_size"]
    other = fastddpm.train(config(output_dir=str(tmp_path / "by hand"), **{"train.micro_batch_size": size}))
    one, two = (checkpoint.verify(folder / "checkpoints" / "step-00000002")["files"] for folder in (run, other))
    assert one == two, "the same checksums: nothing that was tried left a trace"


def test_a_trial_step_leaves_no_trace(config):
    """What is tried on GPUs, computed here; the network has BatchNorm's statistics to spoil."""
    run = opened(config())
    unet = run.state.unet
    before, random_state = {k: v.clone() for k, v in unet.state_dict().items()}, torch.get_rng_state()
    assert any("running_mean" in name for name in before)
    assert fits_on_device(6, run.split, run.config, unet, run.splits, "no")
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in unet.parameters())


def test_a_trial_step_that_does_not_fit_is_no_error_and_leaves_no_trace(config):
    """A real refusal of torch's allocator: images of 2^40 pixels."""
    run = opened(config())
    unet = run.state.unet
    splits = replace(run.splits, train=Vast(run.splits.train))
    before = {k: v.clone() for k, v in unet.state_dict().items()}
    assert not fits_on_device(6, run.split, run.config, unet, splits, "no")
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())


class Vast:
    """The images of a subset, said to be 2^20 pixels a side."""

    def __init__(self, subset):
        self.source, self.image_shape, self._length = subset.source, (1, 2**20, 2**20), len(subset)

    def __len__(self):
        return self._length


def test_other_errors_are_not_taken_for_memory(config):
    run = opened(config())
    with pytest.raises(RuntimeError, match="^wrong device$"), explained_out_of_memory(run.config, run.split, 3, None):
        raise RuntimeError("wrong device")


@pytest.mark.parametrize(
    ("settings", "micro", "ways"),
    [
        ({}, 6, r"use --train.micro_batch_size 4, or --train.gradient_checkpointing true; the run then goes on"),
        ({"train.micro_batch_size": 6}, 6, r"use --train.micro_batch_size 4 or auto, or --train.grad"),
        ({"train.gradient_checkpointing": True}, 6, r"use --train.micro_batch_size 4, or smaller images \(--data"),
        ({}, 1, r"use --train.gradient_checkpointing true;"),
    ],
)
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to"), MemoryError()])
def test_an_out_of_memory_error_names_what_helps(config, settings, micro, ways, error):
    settings = config(**settings)
    split = replace(Split.of(settings.train, 0, 2), rank=1, micro_batch_size=micro)
    where = (
        rf"^out of memory in step 8 on rank 1, with train.micro_batch_size {micro} \(expected peak n/a a process\); "
    )
    with pytest.raises(ValueError, match=where + ways), explained_out_of_memory(settings, split, 7, None):
        raise error


@pytest.mark.parametrize(("size", "way"), [(64, "use --sample.micro_batch_size 32;"), (1, "use smaller images or a")])
def test_samples_that_do_not_fit_name_their_own_micro_batch(config, size, way):
    with borrowed_process(), open_run(config(**{"sample.micro_batch_size": size})) as run:
        run.state.ema.model.register_forward_pre_hook(refuse)
        with pytest.raises(ValueError, match=rf"drawing samples after step 0, with .*_size {size}; {way}"):
            draw_samples(run, 2, "samples")


def refuse(*_):
    """As a GPU does."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to")


def test_what_a_process_may_take_follows_the_machine():
    free = psutil.virtual_memory().available
    assert 0 < available_bytes() <= 1.1 * free


LIMITED = """
import resource, sys
import psutil
from fastddpm.training import loop
from fastddpm.training.microbatch import available_bytes
original = loop.train_step
def train_step(run):
    if run.state.step == 2:
        limit = psutil.Process().memory_info().vms + 64 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        assert available_bytes() <= 64 * 2**20
    return original(run)
loop.train_step = train_step
from fastddpm.cli import main
main(["train", *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS is not enforced elsewhere")
def test_a_step_that_does_not_fit_ends_the_run_with_one_line(tmp_path):
    """A real one: from the third step on the process may take 64 MiB more, and a step takes some 300."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(32):
        Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(tmp_path / "images" / f"{i}.png")
    settings = {
        "data.source": tmp_path / "images", "data.cache_dir": tmp_path / "cache", "out": tmp_path / "run",
        "model.block_out_channels": "[32, 32]", "train.batch_size": 32, "train.num_images_seen": 128,
        "train.checkpoint_every": 2, "train.mixed_precision": "no", "sample.num_images": 2,
        "sample.num_inference_steps": 2,
    }  # fmt: skip
    words = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    (tmp_path / "empty.yaml").write_text("seed: 0\n")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "--config", str(tmp_path / "empty.yaml"), *words],
        capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"},  # else what two steps have freed is enough for a third
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-2000:]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("fastddpm: error: out of memory in step 3 on rank 0, with train.micro_batch_size 32 (expect")
    assert "use --train.micro_batch_size 16 or auto, or --train.gradient_checkpointing true; " in last
    assert "Traceback" not in done.stderr
    assert checkpoint.newest(tmp_path / "run" / "checkpoints")[1]["step"] == 2


@pytest.mark.slow
def test_two_processes_agree_on_the_smallest(tmp_path, image_folder):
    """Rank 1 is told that it has no memory."""
    code = (
        "import os\nfrom fastddpm.training import microbatch\n"
        "if os.environ['RANK'] == '1': microbatch.available_bytes = lambda: 0\n"
    )
    done = start(
        tmp_path / "run", image_folder, processes=2, before=code,
        **{"train.micro_batch_size": "auto", "train.num_images_seen": "16", "train.num_processes": "2"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "train.micro_batch_size auto: 1, all that another rank has memory for" in done.stdout
    assert "batch 8 in 8 of 1" in done.stdout
