"""Ranks that differ are refused, all of them, before anything is computed."""

import re
import time

import numpy as np
import pytest
from PIL import Image

from fastddpm import agreement
from fastddpm.agreement import _checksum_of_code
from tests.training.runs import some_images, start_each

TIMED = """
import os, time
os.environ.pop("OMP_NUM_THREADS", None)  # then Accelerate sets the threads too
from fastddpm import agreement
from fastddpm.training import run
check = agreement.check_alike
def timed(*words, **more):
    began = time.perf_counter()
    try:
        check(*words, **more)
    finally:
        print(f"compared in {time.perf_counter() - began:.3f} s", flush=True)
run.check_alike = timed
"""
"""says how long the comparison took"""


def on_rank(rank, *lines):
    """Python that one rank runs before it begins."""
    return (
        "import os, sys\nif os.environ['RANK'] == '" + str(rank) + "':\n" + "".join(f"    {line}\n" for line in lines)
    )


def given(*words):
    return f"sys.argv += {list(words)!r}"


OTHER_VERSION = (
    "from importlib import metadata",
    "found = metadata.version",
    "metadata.version = lambda name: '0.0' if name == 'diffusers' else found(name)",
)
DRIFTS = {
    "learning_rate": (
        [given("--train.learning_rate", "0.1")], {},
        "train.learning_rate differs: 0.001 on {0} and 0.1 on {1}; start all",
    ),
    "seed": ([given("--seed", "1")], {}, "seed differs: 0 on {0} and 1 on {1}; start all"),
    "max_grad_norm": (
        [given("--train.max_grad_norm", "0.01")], {}, "train.max_grad_norm differs: 1.0 on {0} and 0.01 on {1}; start"
    ),
    "batch_size": ([given("--train.batch_size", "16")], {}, "train.batch_size differs: 8 on {0} and 16 on {1}; start"),
    "version": (OTHER_VERSION, {}, "the version of diffusers differs: \\d.* on {0} and 0.0 on {1}; install the same"),
    "environment": (
        ["os.environ['NVIDIA_TF32_OVERRIDE'] = '1'"], {},
        "NVIDIA_TF32_OVERRIDE differs: not set on {0} and 1 on {1}; set it alike",
    ),
    "threads": (
        [given("--train.num_threads", "2")],
        {"train.num_threads": "1", "train.determinism": "elastic", "train.micro_batch_size": "2"},
        "the number of threads differs: 1 on {0} and 2 on {1}; train.determinism elastic promises equal bits",
    ),
}  # fmt: skip


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("drift", [
    name if name in ("learning_rate", "version", "threads") else pytest.param(name, marks=pytest.mark.slow)
    for name in DRIFTS
])  # fmt: skip
def test_ranks_that_differ_are_all_refused_within_a_second(tmp_path, drift, processes):
    lines, settings, message = DRIFTS[drift]
    images, last = some_images(tmp_path / "images"), processes - 1
    others = "rank 0" if processes == 2 else "ranks 0, 1, 2"
    wanted = "rank {}: " + message.format(others, f"rank {last}")
    ended = start_each(tmp_path / "run", images, processes=processes, before=TIMED + on_rank(last, *lines), **settings)
    for rank, done in enumerate(ended):
        assert done.returncode == 2, done.stderr
        assert re.search(wanted.format(rank), done.stderr), done.stderr
        assert "Traceback" not in done.stderr
        assert float(re.search(r"compared in ([\d.]+) s", done.stdout)[1]) < 1 + 2 * (processes > 2)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists(), "the data was read"


def test_one_changed_picture_on_one_machine_is_refused_by_all(tmp_path):
    images, other = some_images(tmp_path / "images"), some_images(tmp_path / "elsewhere" / "images")
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(other / "05.png")
    own = on_rank(1, given("--data.source", str(other), "--data.cache_dir", str(tmp_path / "elsewhere" / "cache")))
    for rank, done in enumerate(start_each(tmp_path / "run", images, processes=2, before=own)):
        assert done.returncode == 2, done.stderr
        assert f"rank {rank}: what data.source holds differs: 24 images (checksum" in done.stderr
        assert "give all machines the same pictures" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_same_pictures_at_two_places_are_one_set(tmp_path):
    images, other = some_images(tmp_path / "images"), some_images(tmp_path / "elsewhere" / "images")
    own = on_rank(1, given("--data.source", str(other), "--data.cache_dir", str(tmp_path / "elsewhere" / "cache")))
    for done in start_each(tmp_path / "run", images, processes=2, before=own):
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_other_weights_to_start_from_are_refused_by_all(tmp_path):
    images, runs = some_images(tmp_path / "images"), [tmp_path / "a", tmp_path / "b"]
    for seed, run in enumerate(runs):
        (done,) = start_each(run, images, processes=1, seed=str(seed))
        assert done.returncode == 0, done.stderr
    own = on_rank(1, given("--model.init_from", str(runs[1])))
    ended = start_each(tmp_path / "run", images, processes=2, before=own, **{"model.init_from": str(runs[0])})
    for rank, done in enumerate(ended):
        assert done.returncode == 2, done.stderr
        assert f"rank {rank}: the network of model.init_from (its checksum) differs" in done.stderr


@pytest.mark.slow
def test_unequal_threads_without_a_promise_are_told_once(tmp_path):
    images = some_images(tmp_path / "images")
    two = on_rank(1, given("--train.num_threads", "2"))
    ended = start_each(tmp_path / "run", images, processes=2, before=two, **{"train.num_threads": "1"})
    assert [done.returncode for done in ended] == [0, 0], ended[0].stderr
    told = "the number of threads differs: 1 on rank 0 and 2 on rank 1; results round as each rank has it"
    assert [done.stdout.count(told) for done in ended] == [1, 0]


def test_other_code_has_another_checksum_and_the_same_has_the_same(tmp_path, monkeypatch):
    (tmp_path / "room").mkdir()
    module = tmp_path / "room" / "module.py"
    module.write_text("x = 1\n")
    monkeypatch.setattr(agreement, "__file__", str(tmp_path / "agreement.py"))
    before = _checksum_of_code()
    (tmp_path / "page.html").write_text("decides no number")
    assert _checksum_of_code() == before
    module.write_text("x = 2\n")
    assert _checksum_of_code() != before
    began = time.perf_counter()
    monkeypatch.undo()
    _checksum_of_code()
    assert time.perf_counter() - began < 0.5
