"""F3: asked to stop by a signal, in every phase: the step under way is saved, the code says which signal, and the same
command goes on to the bits of a run that was never stopped."""

import os
import signal
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest

from fastddpm.process import can_compile
from fastddpm.training import stopping as stopping_module
from fastddpm.training import watch
from fastddpm.training.state import TrainState
from fastddpm.training.stopping import Stopped, Stopping
from tests.training.runs import free_port, metrics, some_images, start, train_here
from tests.training.test_resume import assert_same

CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGUSR1": 138}

IN_A_STEP = """
import os, signal
from fastddpm.training import loop
inner = loop.train_step
def train_step(run):
    if run.state.step == 12 and os.environ.get("RANK", "{rank}") == "{rank}":
        os.kill(os.getpid(), signal.{name})
    return inner(run)
loop.train_step = train_step
"""
IN_A_SAVE = """
import os, signal
from fastddpm.training import state
inner = state.TrainState.write
def write(self, folder):
    if self.step == 10:
        os.kill(os.getpid(), signal.SIGTERM)
    inner(self, folder)
state.TrainState.write = write
"""
IN_A_PREVIEW = """
import os, signal
from fastddpm.training import watch
inner = watch.draw_samples
def draw_samples(run, *others):
    if run.state.step == 13:
        os.kill(os.getpid(), signal.SIGTERM)
    return inner(run, *others)
watch.draw_samples = draw_samples
"""
IN_THE_READING = """
import os, signal
from fastddpm.data import store_filling as part
inner = part.Part.append
def append(self, *others):
    inner(self, *others)
    os.kill(os.getpid(), signal.SIGTERM)
part.Part.append = append
"""
IN_THE_LAST_PICTURES = """
import os, signal, sys
import fastddpm.training
def stop(*_):
    os.kill(os.getpid(), signal.SIGTERM)
sys.modules["fastddpm.training.finish"]._draw_denoising = stop
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return some_images(tmp_path_factory.mktemp("stopping") / "images")


@pytest.fixture(scope="module")
def straight(images):
    """A run that was not stopped."""
    done = start(images.parent / "straight", images)
    assert done.returncode == 0, done.stderr
    return images.parent / "straight"


@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGINT", "SIGUSR1"))]
)
def test_f3_a_signal_in_a_step_ends_it_with_a_checkpoint_and_its_code(images, straight, tmp_path, name):
    folder = tmp_path / "run"
    stopped = start(folder, images, before=IN_A_STEP.format(name=name, rank=0))
    assert stopped.returncode == CODES[name]
    assert f"stopped by {name} after step 13, which is saved" in stopped.stdout
    assert "Traceback" not in stopped.stderr
    assert (folder / "checkpoints" / "step-00000013").is_dir()
    again = start(folder, images)
    assert again.returncode == 0, again.stderr
    assert "going on from step 13" in again.stdout
    assert_same(folder, straight)


@pytest.mark.parametrize(
    ("phase", "step"),
    [
        pytest.param(IN_A_SAVE, 10, marks=pytest.mark.slow),
        pytest.param(IN_A_PREVIEW, 13, marks=pytest.mark.slow),
        pytest.param(IN_THE_READING, None, marks=pytest.mark.slow),
        pytest.param(IN_THE_LAST_PICTURES, 20, marks=pytest.mark.slow),
    ],
    ids=["save", "preview", "ingest", "last pictures"],
)
def test_f3_in_every_phase_nothing_is_lost(images, straight, tmp_path, phase, step):
    folder = tmp_path / "run"
    settings = {"watch.preview_every_images": "104", "data.cache_dir": str(tmp_path / "cache")}
    stopped = start(folder, images, before=phase, **settings)
    assert stopped.returncode == 143
    assert "Traceback" not in stopped.stderr
    if step is not None:
        assert (folder / "checkpoints" / f"step-{step:08d}").is_dir()
    again = start(folder, images, **settings)
    assert again.returncode == 0, again.stderr
    assert_same_tensors(folder, straight)


def assert_same_tensors(folder, straight):
    """Previews add rows to the log; the weights do not know of them."""
    from tests.training.runs import final_tensors

    ours, theirs = final_tensors(folder), final_tensors(straight)
    assert all((tensor == theirs[name]).all() for name, tensor in ours.items())


WHILE_COMPILING = """
import os, signal, torch._inductor.compile_fx as compile_fx
inner = compile_fx.compile_fx
def compile_and_be_asked(*args, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    return inner(*args, **options)
compile_fx.compile_fx = compile_and_be_asked
"""


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(cpu=True), reason="no C++ compiler")
def test_f3_while_it_compiles_the_first_step_is_finished_first(images, tmp_path):
    folder = tmp_path / "run"
    settings = {"train.compile": "true", "model.norm_type": "group", "model.norm_num_groups": "2"}
    stopped = start(folder, images, before=WHILE_COMPILING, **settings)
    assert stopped.returncode == 143, stopped.stderr
    assert "stopped by SIGTERM after step 1, which is saved" in stopped.stdout
    assert (folder / "checkpoints" / "step-00000001").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_f3_one_rank_is_asked_and_all_stop_after_the_same_step(images, tmp_path, rank):
    folder, settings = tmp_path / "run", {"train.micro_batch_size": "4"}
    whole = start(tmp_path / "whole", images, processes=2, **settings)
    assert whole.returncode == 0, whole.stderr
    stopped = start(folder, images, processes=2, before=IN_A_STEP.format(name="SIGTERM", rank=rank), **settings)
    assert stopped.returncode != 0
    assert "stopped by SIGTERM after step 14, which is saved" in stopped.stdout
    assert (folder / "checkpoints" / "step-00000014").is_dir()
    again = start(folder, images, processes=2, **settings)
    assert again.returncode == 0, again.stderr
    assert_same(folder, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("by_terminal", [False, True], ids=["SIGTERM to it", "Ctrl-C to all"])
@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_f3_the_launcher_is_asked_and_the_run_stops(images, tmp_path, launcher, by_terminal):
    """`accelerate launch` of one process does not hand the signal on; torchrun does. A terminal sends it to all of
    them, and the launcher may then do so once more."""
    folder = tmp_path / "run"
    script = tmp_path / "train.py"
    (tmp_path / "empty.yaml").write_text("seed: 0\n")
    config = str(tmp_path / "empty.yaml")
    script.write_text(
        f"import sys\nfrom fastddpm.cli import main\nmain(['train', '--config', {config!r}, *sys.argv[1:]])\n"
    )
    settings = {
        "model.block_out_channels": "[4, 8]", "model.time_embedding_dim": "8", "train.batch_size": "8",
        "train.num_images_seen": "1000000", "train.log_every": "4", "train.checkpoint_every": "0",
        "train.num_threads": "1", "data.source": str(images), "data.cache_dir": str(tmp_path / "cache"),
        "train.mixed_precision": "no",
    }  # fmt: skip
    words = [str(script), "--out", str(folder), *(word for k, v in settings.items() for word in (f"--{k}", v))]
    ways = {
        "accelerate": ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--mixed_precision", "no",
                       "--num_machines", "1", "--dynamo_backend", "no"],
        "torchrun": ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())],
    }  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *ways[launcher], *words]
    running = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: (folder / "metrics.jsonl").exists() and len(metrics(folder)) > 2)
    if by_terminal:
        os.killpg(running.pid, signal.SIGINT)
    else:
        running.send_signal(signal.SIGTERM)
    assert running.wait(60) != 0
    whole = f"step-{'[0-9]' * 8}"  # not the folder that is still written: the launcher may be gone before the run
    wait_until(lambda: list((folder / "checkpoints").glob(whole)))
    (saved,) = (folder / "checkpoints").glob(whole)
    assert int(saved.name.removeprefix("step-")) >= metrics(folder)[-1]["step"]


def wait_until(is_so, seconds=90):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def test_only_a_user_who_insists_ends_it_at_once(monkeypatch):
    """Not a launcher, which hands on what the terminal has sent already."""
    now = 100.0
    monkeypatch.setattr(stopping_module.time, "monotonic", lambda: now)
    stopping = Stopping()
    with stopping.deferred():
        stopping.note(signal.SIGINT)
        for number in (signal.SIGINT, signal.SIGTERM):
            stopping.note(number)
        assert stopping.is_due(3)
        now += 5
        stopping.note(signal.SIGTERM)
        assert stopping.stopped().code == 130  # of the first one
        with pytest.raises(Stopped):
            stopping.note(signal.SIGINT)


def test_outside_of_a_step_it_ends_at_once():
    with pytest.raises(Stopped) as stopped:
        Stopping().note(signal.SIGUSR1)
    assert (stopped.value.code, stopped.value.name) == (138, "SIGUSR1")


def test_what_may_be_left_in_the_middle_is_left_by_a_process_that_is_alone():
    stopping = Stopping()
    with stopping.deferred():
        with stopping.deferred(True):
            stopping.note(signal.SIGTERM)
        assert stopping.is_due(1)
    alone = Stopping()
    with alone.deferred(), alone.deferred(False), pytest.raises(Stopped):
        alone.note(signal.SIGTERM)


def test_the_callers_own_handlers_come_back(images, tmp_path):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    train_here(tmp_path / "run", images)
    assert {number: signal.getsignal(number) for number in before} == before


def test_pictures_that_are_left_in_the_middle_are_gone_before_the_save(images, tmp_path, monkeypatch):
    drawn, alive, write = [], [], TrainState.write

    def draw_samples(run, *_):
        if run.state.step:
            samples = np.zeros(1)
            drawn.append(weakref.ref(samples))
            raise Stopped(signal.SIGTERM)

    def look_and_write(self, folder):
        alive.append([samples() for samples in drawn])
        write(self, folder)

    monkeypatch.setattr(watch, "draw_samples", draw_samples)
    monkeypatch.setattr(TrainState, "write", look_and_write)
    with pytest.raises(Stopped):
        train_here(tmp_path / "run", images, **{"watch.preview_every_images": "104"})
    assert alive[-1] == [None]
