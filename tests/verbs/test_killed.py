"""kill -9 between any two operations on files: the next start goes on, to the same bytes, and leaves nothing else.

A child process is forked for each place, so that a start takes no time.
"""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, cli
from tests.conftest import tiny_unet

OPERATIONS = ("rename", "replace", "unlink", "rmdir", "mkdir")
"""of the module os; shutil and pathlib call them there"""


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """(place) -> the words of each verb that writes there."""
    base = tmp_path_factory.mktemp("given")
    scheduler = FusedDDPMScheduler(num_train_timesteps=20, beta_end=0.5)
    FastDDPMPipeline(tiny_unet(num_class_embeds=3), scheduler).save_pretrained(base / "model")
    for i in range(4):
        (base / "data" / str(i % 2)).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(base / "data" / str(i % 2) / f"{i}.png")
    few = ["--num_inference_steps", 1, "--micro_batch_size", 2, "--num_threads", 1]
    return {
        "sample": ["sample", base / "model", "--num_images", 3, *few],
        "augment": ["augment", base / "model", base / "data", "--start_timesteps", 1, *few],
    }


def run(words, out, stop_before=None):
    """Run a verb in a child process that kills itself before its n-th operation on files.  Returns: its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code, count = 1, 0
    try:
        log = os.open(out.parent.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)

        def counted(original):
            def operation(*arguments, **more):
                nonlocal count
                count += 1
                if count == stop_before:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **more)

            return operation

        for name in OPERATIONS:
            setattr(os, name, counted(getattr(os, name)))
        cli.main([*map(str, words), "--out", str(out)])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        os._exit(code)


def everything(folder: Path):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "name"),
    [("sample", "out"), ("sample", "x.npz"), ("sample", "x.png"), ("augment", "out"), ("augment", "x.parquet")],
)
def test_a_verb_that_is_killed_between_any_two_operations_on_files_goes_on(words, tmp_path, verb, name, monkeypatch):
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))
    assert run(words[verb], tmp_path / "straight" / name) == 0, (tmp_path / "log").read_text()
    straight = everything(tmp_path / "straight")
    place = 0
    while True:
        place += 1
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        code = run(words[verb], tmp_path / "killed" / name, stop_before=place)
        if code == 0:
            break
        assert code == -signal.SIGKILL, (place, (tmp_path / "log").read_text())
        assert run(words[verb], tmp_path / "killed" / name) == 0, (place, (tmp_path / "log").read_text())
        assert everything(tmp_path / "killed") == straight, place
    assert place > 10
