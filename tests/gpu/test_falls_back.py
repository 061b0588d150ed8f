"""What a card or its machine lacks: said in a line, and done another way."""

import logging
import subprocess
from unittest import mock

import pytest
import torch

from fastddpm import precision
from fastddpm.kernels import triton_or_not
from fastddpm.precision import of_card_in_words, resolve_precision
from fastddpm.process import is_out_of_memory
from fastddpm.schedulers.fused_ddpm import FusedDDPMScheduler
from fastddpm.training.build_network import _from_options
from tests.conftest import tiny_unet
from tests.gpu.card import CARD, inserted, needs_card
from tests.gpu.test_training import steps_of
from tests.gpu.tiny import opened

NO_COMPILER = RuntimeError("Failed to find C compiler. Please specify via CC environment variable")
NO_HEADER = subprocess.CalledProcessError(1, ["gcc", "-I/usr/include/python3.11", "main.c"])


@pytest.fixture
def unbroken(monkeypatch):
    monkeypatch.setattr(triton_or_not, "_is_broken", False)


def failing(error, tries):
    """Launches fail, inside the card's own context: outside, it would be the card's that is put back."""

    class Failing:
        def __getitem__(self, grid):
            def launch(*_, **__):
                tries.append(grid)
                raise error

            return launch

    return mock.patch.object(torch.library, "wrap_triton", return_value=Failing())


def noised(device):
    scheduler = FusedDDPMScheduler(num_train_timesteps=20)
    x_0, positions = torch.full((2, 1, 8, 8), 100, dtype=torch.uint8), torch.arange(2)
    return scheduler.q_sample(x_0.to(device), positions.to(device), positions.to(device), seed=0, stream=0)[0].cpu()


@needs_card
@pytest.mark.parametrize("error", [NO_COMPILER, NO_HEADER], ids=["no compiler", "no Python.h"])
def test_without_a_compiler_the_references_compute_and_it_is_said_once(error, caplog, unbroken):
    tries = []
    with inserted(), failing(error, tries), caplog.at_level(logging.WARNING, "fastddpm"):
        first, second = noised(CARD), noised(CARD)
    assert len(tries) == 1, "after the first none is tried"
    (line,) = (record.message for record in caplog.records)
    assert line.startswith(f"Triton cannot compile here ({type(error).__name__}: ")
    assert line.endswith("install a C compiler and Python's headers (gcc, python3-dev)")
    assert torch.equal(first, noised("cpu"))
    assert torch.equal(first, second)


@needs_card
@pytest.mark.parametrize("text", ["Triton Error [CUDA]: out of memory", "CUDA error: an illegal memory access"])
def test_a_failing_device_is_no_missing_compiler(text, unbroken):
    with inserted(), failing(RuntimeError(text), []), pytest.raises(RuntimeError, match=text.replace("[", r"\[")):
        noised(CARD)
    assert not triton_or_not._is_broken


@needs_card
def test_bf16_is_not_chosen_where_it_is_emulated(tmp_path, capsys):
    with inserted(name="Tesla T4", capability=(7, 5)):
        assert torch.cuda.is_bf16_supported(), "as torch 2.13 says of such a card"
        with opened("mnist-paper", tmp_path, "auto") as run:
            assert run.accelerator.mixed_precision == "fp16"
    why = "train.mixed_precision auto: fp16, since Tesla T4 (compute capability 7.5) only emulates bf16"
    assert why in capsys.readouterr().out.splitlines()
    with inserted(capability=(8, 0)):
        assert resolve_precision("auto", cpu=False) == "bf16"
        assert list(of_card_in_words(False, "auto", "bf16")) == []


def test_a_card_that_torch_does_not_see_is_said(monkeypatch, tmp_path):
    for name in ("CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    assert list(of_card_in_words(True)) == [] or precision.NVIDIA.exists()
    monkeypatch.setattr(precision, "NVIDIA", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    (line,) = of_card_in_words(True)
    assert f"torch {torch.__version__}, made for CUDA 13.0, sees no GPU, so the CPU works; compare" in line
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert list(of_card_in_words(True)) == [], "hidden on purpose"


@needs_card
def test_several_cards_are_not_warned_of_and_keep_their_random_state(recwarn):
    options = tiny_unet().config
    with inserted(count=2):
        _from_options("PaperUNet2DModel", options, seed=0)
        torch.cuda.manual_seed_all.assert_not_called()
    assert not [w for w in recwarn if "devices" in str(w.message)]


@pytest.mark.parametrize(
    "text",
    ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "CUDA error: out of memory",
     "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "Triton Error [CUDA]: out of memory"],
)  # fmt: skip
def test_a_full_memory_in_all_its_words(text):
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED"))


@needs_card
def test_overflows_that_fp16_looks_for_are_no_incidents(tmp_path):
    with inserted(), opened("mnist-paper", tmp_path, "fp16") as run:
        run.accelerator.scaler._init_scale = 2.0**40
        steps_of(run, 2)
        count, _, in_a_row = run.state.guard.read_and_reset()
        assert (count, in_a_row) == (0, 2)
