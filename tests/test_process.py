import contextlib
import io
import os
import subprocess
import sys
import sysconfig
import termios
from pathlib import Path

import pytest
import torch

from fastddpm.config import ModelConfig, RunConfig, TrainConfig
from fastddpm.models.attention import attention_kernels
from fastddpm.precision import cpu_is_faster_in_bf16, resolve_precision
from fastddpm.process import counted, program
from fastddpm.progress import bar_options, progress_bar
from fastddpm.training.split import Split
from tests.forked import run_python

PROJECT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(("batch", "micro", "world"), [(64, 64, 1), (64, 16, 1), (64, 16, 2), (48, 16, 2), (60, 12, 4)])
def test_micro_batches_are_dealt_to_ranks_without_loss_or_duplicate(batch, micro, world):
    config = TrainConfig(batch_size=batch, micro_batch_size=micro)
    splits = [Split.of(config, rank, world) for rank in range(world)]
    dealt = [split.positions(step=3) for split in splits]
    assert sorted(int(p) for rank in dealt for m in rank for p in m) == list(range(3 * batch, 4 * batch))
    counts = [len(rank) for rank in dealt]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(("batch", "micro", "world"), [(64, 16, 1), (64, 16, 2), (48, 16, 2)])
def test_loss_scale_makes_ddps_mean_the_batch_mean(batch, micro, world):
    config = TrainConfig(batch_size=batch, micro_batch_size=micro)
    losses = torch.rand(batch, dtype=torch.float64)
    by_rank = []
    for rank in range(world):
        split = Split.of(config, rank, world)
        by_rank.append(sum(losses[positions].mean() * split.loss_scale for positions in split.positions(0)))
    assert torch.isclose(sum(by_rank) / world, losses.mean())


def test_micro_batch_follows_from_the_number_of_processes():
    assert Split.of(TrainConfig(batch_size=64), 1, 4).micro_batch_size == 16


@pytest.mark.parametrize(
    ("config", "world", "message"),
    [
        (TrainConfig(batch_size=64), 3, r"\(64\) is no multiple of the 3 processes; use --train.batch_size 63"),
        (TrainConfig(batch_size=64, micro_batch_size=32), 4, "4 processes share 2 micro-batches"),
    ],
)
def test_splits_that_do_not_go_up_are_refused(config, world, message):
    with pytest.raises(ValueError, match=message):
        Split.of(config, 0, world)


@pytest.mark.parametrize(
    ("asked", "launcher", "chosen"), [("auto", "bf16", "bf16"), ("no", "no", "no"), ("bf16", "no", "bf16")]
)
def test_precision_is_the_launchers_or_ours(monkeypatch, asked, launcher, chosen):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    assert resolve_precision(asked, cpu=True) == chosen


def test_precision_of_drawing_is_the_launchers_or_fp32(monkeypatch):
    for launcher, asked, chosen in (("no", "auto", "no"), ("no", "fp32", "no"), ("no", "bf16", "bf16"),
                                    ("bf16", "auto", "bf16")):  # fmt: skip
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
        assert resolve_precision(asked, True, "precision") == chosen
    with pytest.raises(ValueError, match="precision is 'fp32', but the launcher asks for 'bf16'"):
        resolve_precision("fp32", True, "precision")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    with pytest.raises(ValueError, match="^precision fp16 needs a GPU and there is none; use --precision auto"):
        resolve_precision("fp16", True, "precision")


@pytest.mark.parametrize(
    ("asked", "launcher", "message"),
    [
        ("no", "bf16", "train.mixed_precision is 'no', but the launcher asks for 'bf16'"),
        ("fp16", "no", "fp16 needs a GPU and there is none"),
        ("auto", "fp8", "the launcher asks for mixed precision 'fp8'"),
    ],
)
def test_precision_that_contradicts_is_refused(monkeypatch, asked, launcher, message):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    with pytest.raises(ValueError, match=message):
        resolve_precision(asked, cpu=True)


def launch(*words: str, tmp_path: Path, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *words, str(PROJECT / "train.py"),
         "--out", str(tmp_path / "run")],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **env},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the launcher starts two processes where there are GPUs")
def test_f4_one_process_where_two_were_asked_for_is_refused(tmp_path):
    """`accelerate launch --cpu --num_processes 2` starts one process without a word."""
    done = launch("--cpu", "--num_processes", "2", tmp_path=tmp_path)
    assert done.returncode != 0
    assert "was asked for several processes but started one" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_f4_another_number_of_processes_than_configured_is_refused(tmp_path):
    done = run_python([PROJECT / "train.py", "--train.num_processes", "2", "--out", tmp_path / "run"])
    assert done.returncode == 2
    assert "asks for 2 processes, got 1" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_accumulation_set_by_the_launcher_is_refused(tmp_path):
    done = subprocess.run(
        [sys.executable, PROJECT / "train.py", "--out", tmp_path / "run"],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "accumulation follows from train.batch_size" in done.stderr


@pytest.mark.parametrize(
    ("capabilities", "faster"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True}, False),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "AMD Zen 4", "avx512_bf16": True}, True),
        ({"cpu_name": "AMD Zen 3", "avx512_bf16": False}, False),
        ({"cpu_name": "Neoverse V2", "bf16": True}, True),
        ({}, False),
    ],
)
def test_bf16_is_taken_on_cpus_that_are_faster_in_it(capabilities, faster):
    assert cpu_is_faster_in_bf16(capabilities) == faster


@pytest.mark.parametrize(
    ("precision", "backend", "plain"), [("bf16", None, True), ("no", None, False), ("bf16", "native", False)]
)
def test_attention_is_plain_in_bfloat16_on_cpus_only(precision, backend, plain):
    config = RunConfig(output_dir="none", model=ModelConfig(attention_backend=backend))
    with attention_kernels(config.model.attention_backend, torch.device("cpu"), precision):
        assert torch.backends.cuda.flash_sdp_enabled() != plain


def test_a_number_is_said_with_its_noun():
    assert [counted(count, "bad file") for count in (0, 1, 2_000)] == ["0 bad files", "1 bad file", "2,000 bad files"]
    assert [counted(count, "process") for count in (1, 2)] == ["1 process", "2 processes"]


BARS = """
import time
from fastddpm import progress
progress.SECONDS_BETWEEN_LINES, began = 0.2, time.perf_counter()
with progress.progress_bar(title="outer", total=100, leave=True) as outer:
    for _ in range(20):
        for _ in progress.progress_bar(range(5), "inner"):
            outer.set_postfix_str("loss 0.1")
            time.sleep(0.004)
            outer.update()
print(time.perf_counter() - began)
"""


def test_bars_in_a_log_are_a_line_now_and_then():
    """Two bars at once, of 100 frames and more."""
    ended = run_python(["-c", BARS])
    lines = ended.stderr.splitlines()
    assert 1 <= len(lines) <= 1 + float(ended.stdout) / 0.2
    assert all(line.startswith(("outer: ", "inner: ")) and "/" in line for line in lines), lines
    assert "\r" not in ended.stderr


def test_first_frame_of_a_bar_in_a_log_waits():
    """So none stands before an error that comes at once."""
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown), progress_bar(range(3), "reading") as bar:
        list(bar)
    assert shown.getvalue() == ""


@pytest.mark.parametrize(("columns", "is_drawn"), [(80, True), (0, False)])
def test_a_terminal_without_a_width_gets_lines_and_no_empty_frames(monkeypatch, columns, is_drawn):
    own, other = os.openpty()
    termios.tcsetwinsize(other, (24, columns))
    with open(own, "rb", 0), open(other, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert ("dynamic_ncols" in bar_options("reading")) == is_drawn


def test_program_is_called_by_its_path_where_no_environment_is_activated(monkeypatch, tmp_path):
    scripts = tmp_path / "my venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "fastddpm").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(scripts))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == "'my venv/bin/fastddpm'"
    monkeypatch.setenv("PATH", str(scripts))
    assert program() == "fastddpm", "it is activated"
    (tmp_path / "fastddpm").touch(mode=0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), str(scripts)]))
    assert program() == "'my venv/bin/fastddpm'", "another one is found first"
