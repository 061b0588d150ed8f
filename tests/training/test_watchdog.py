"""F10, F11: a rank that dies or hangs is named in bounded time, and the run goes on from its last checkpoint; F35: a
port that is taken."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch.distributed as dist

from fastddpm.training.split import Split
from fastddpm.training.watchdog import (
    HANG_CODE,
    LostProcess,
    Report,
    Watchdog,
    cause,
    is_of_communication,
    loss_explained,
    watched,
)
from tests.training.runs import once_in_step, start, start_each, words_of
from tests.training.test_elastic import ELASTIC, assert_bit_equal

STOPPED = "os.kill(os.getpid(), signal.SIGSTOP)"
STUCK = "time.sleep(1000)"
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "says"),
    [
        (STOPPED, "nothing is heard of rank 1 on "),
        (STUCK, "all ranks are in the same step; the stacks above say where"),
    ],
    ids=["SIGSTOP", "stuck"],
)
def test_f11_a_rank_that_hangs_is_named_with_stacks_and_a_restart_heals(tmp_path, image_folder, how, says):
    settings = {**ELASTIC, "train.hang_timeout": "10"}
    straight, folder = tmp_path / "straight", tmp_path / "run"
    assert start(straight, image_folder, **settings).returncode == 0
    before = once_in_step(12, how, flag=tmp_path / "hung", rank=1)
    began = time.monotonic()
    done = start(folder, image_folder, processes=2, before=before, **settings)
    assert done.returncode != 0
    assert time.monotonic() - began < 180  # torchrun gives a process that is stopped 30 s before it kills it
    # a rank that is asleep looks too, and may be the first to speak: then the other one sees it gone
    said = [line for line in done.stderr.splitlines() if "no progress for" in line]
    assert said
    for line in said:
        assert line.startswith("fastddpm: error: rank ")
        assert "step 13: no progress for" in line
        assert says in line
        assert "goes on from its last checkpoint" in line
    assert "train_step" in done.stderr.partition("fastddpm: error")[0], "stacks come first"
    assert not orphans(tmp_path)
    again = start(folder, image_folder, processes=2, before=before, **settings)
    assert again.returncode == 0, again.stderr
    assert "going on from step 10" in again.stdout
    assert_bit_equal(straight, folder)


@pytest.mark.slow
def test_f10_survivors_name_the_loss_and_torchrun_starts_again(tmp_path, image_folder, monkeypatch):
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")  # see docs/reliability.md, "Every fault"
    straight, folder = tmp_path / "straight", tmp_path / "run"
    assert start(straight, image_folder, **ELASTIC).returncode == 0
    before = once_in_step(12, KILLED, flag=tmp_path / "killed", rank=1)
    done = start(
        folder, image_folder, processes=2, before=before, options=["--standalone", "--max_restarts", "3"], **ELASTIC
    )
    assert done.returncode == 0, done.stderr
    assert "going on from step 10" in done.stdout
    assert_bit_equal(straight, folder)
    assert not orphans(tmp_path)


@pytest.mark.slow
def test_f10_without_restarts_the_job_ends_in_bounded_time_with_a_line(tmp_path, image_folder):
    """Each rank by itself, without torchrun, which would end the survivor before it can speak."""
    before = once_in_step(12, KILLED, flag=tmp_path / "killed", rank=1)
    began = time.monotonic()
    survivor, killed = start_each(tmp_path / "run", image_folder, processes=2, before=before, **ELASTIC)
    assert killed.returncode == -signal.SIGKILL
    assert survivor.returncode == 75
    assert time.monotonic() - began < 150
    (line,) = [line for line in survivor.stderr.splitlines() if "another process of the run is gone" in line]
    assert "rank 0, step 13:" in line
    assert "goes on from its last checkpoint" in line


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param([], id="by hand", marks=pytest.mark.slow),
        pytest.param(
            ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port"],
            id="accelerate", marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_f35_a_port_that_is_taken_is_said_or_another_one_is_used(tmp_path, image_folder, launcher):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = words_of(tmp_path / "run", image_folder, None, "", {})
        group = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        given = {} if launcher else {**group, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        done = subprocess.run(
            [sys.executable, *launcher, *([port] if launcher else []), *words],
            capture_output=True, text=True, check=False, timeout=240,
            env={**os.environ, **given, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    if launcher:  # accelerate looks for another
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "run" / "model_index.json").exists()
        return
    assert done.returncode == 2
    assert f"fastddpm: error: rank 0: port {port}, at which the processes are to meet, is taken" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def orphans(folder):
    """Processes that still use a folder."""
    return [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())]


REPORTS = {0: Report(4, 7, "a step", "a"), 1: Report(9, 7, "a step", "b"), 2: Report(3, 7, "a step", "c")}


def later(**changes):
    """What the ranks say a few beats later, but for some of them."""
    found = {rank: Report(r.beat + 3, r.step, r.doing, r.host) for rank, r in REPORTS.items()}
    return {**found, **{int(name[1:]): report for name, report in changes.items()}}


BEHIND = Report(3, 6, "a step", "c")


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (REPORTS, later(r1=REPORTS[1]), "nothing is heard of rank 1 on b (last heard of in step 8)"),
        (REPORTS | {2: BEHIND}, later(r2=Report(6, 6, "a step", "c")), "behind the others: rank 2;"),
        (REPORTS, later(), "all ranks are in the same step"),
        (
            {0: REPORTS[0], 2: REPORTS[2]},
            {0: later()[0], 2: later()[2]},
            "nothing is heard of rank 1 (not heard of yet)",
        ),
        (REPORTS, later(r0=Report(7, 7, "a checkpoint", "a")), None),
        (REPORTS, later(r0=Report(7, 8, "a step", "a")), None),
        (REPORTS, None, "the process group's store does not answer"),
    ],
    ids=["silent", "behind", "together", "never", "busy", "moving", "cut off"],
)
def test_who_is_named(first, second, says):
    found = cause(first, second, rank=0, world_size=3)
    assert found is None if says is None else says in found


def alive(store, *, other_beats, steps=False, timeout=0.4):
    """The exit codes of a watchdog of rank 0 within some time-outs, beside a rank that says it lives or does not."""
    ended, over = [], threading.Event()
    dog = Watchdog(store, 0, 2, 0, timeout, end=lambda code: (ended.append(code), over.set()))
    with dog.watching():
        for beat in range(1, 31):
            if beat == 1 or other_beats:
                store.set("alive/1", json.dumps(Report(beat, 0, "a checkpoint", "b")))
            if steps:
                dog.stepped(beat)
            if over.wait(0.1):
                break
    return ended


def test_a_silent_rank_ends_the_run_and_a_busy_one_does_not(capfd):
    assert alive(dist.HashStore(), other_beats=False) == [HANG_CODE]
    said = capfd.readouterr().err
    assert "nothing is heard of rank 1 on b" in said
    assert said.index("Thread") < said.index("fastddpm: error: rank 0")
    assert alive(dist.HashStore(), other_beats=True) == []


@pytest.mark.slow
def test_nothing_is_asked_while_steps_are_made():
    assert alive(dist.HashStore(), other_beats=False, steps=True) == []


def test_one_process_is_not_watched():
    before = threading.active_count()
    with watched(Split(8, 8, 0, 1), None, 0, 5.0) as dog, dog.busy("a checkpoint"):
        dog.stepped(1)
        assert threading.active_count() == before


def test_errors_of_communication_become_one_line_and_others_stay():
    gone = RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1\nmore")
    with (
        pytest.raises(LostProcess, match=r"rank 3, step 8: another process of the run is gone \(\[gloo.*:1\)"),
        loss_explained(lambda: "rank 3, step 8"),
    ):
        raise gone
    assert is_of_communication(dist.DistBackendError("NCCL"))
    with pytest.raises(RuntimeError, match="shape"), loss_explained(lambda: "rank 0, step 1"):
        raise RuntimeError("shape")
