"""The Triton kernels under Triton's interpreter, against their references; run by test_interpreter.py in a process of
its own, because TRITON_INTERPRET changes what `triton.jit` returns. The launchers are called directly."""

import os

import pytest
import torch

from fastddpm.kernels import add_noise as forward
from fastddpm.kernels import denoise_step as reverse
from fastddpm.kernels import denoising_mse as loss
from fastddpm.kernels import philox
from tests.kernels.inputs import (
    DTYPES,
    KEY,
    LAYOUTS,
    SHAPES,
    assert_close,
    coefficients,
    pixels,
    positions_of,
    randn,
    schedule,
    timesteps_of,
)

assert os.environ.get("TRITON_INTERPRET") == "1", "run by test_interpreter.py"
CASES = [(shape, torch.float32, LAYOUTS[0]) for shape in SHAPES]
CASES += [((3, 3, 5, 9), dtype, layout) for dtype in DTYPES for layout in LAYOUTS]


@pytest.fixture(autouse=True)
def _launch_directly(monkeypatch):
    monkeypatch.setattr(torch.library, "wrap_triton", lambda kernel: kernel)


def filled(dtype, num, seed, stream, draw):
    out = torch.empty(3, num, dtype=dtype)
    philox.launch_fill(out, torch.tensor([0, 5, 2**40 + 1]), torch.tensor([0, draw, 2**32 - 1]), seed, stream)
    return out


@pytest.mark.parametrize("seed", [0, 1, 7, 2**40 + 5, -1])
@pytest.mark.parametrize("num", [1, 6, 1030])
def test_words_are_bit_equal(seed, num):
    want = philox.philox_words_reference(
        torch.tensor([0, 5, 2**40 + 1]), num, seed=seed, stream=11, draw=torch.tensor([0, 9, 2**32 - 1])
    )
    assert torch.equal(filled(torch.int64, num, seed, 11, 9), want)


def test_words_are_the_known_answer_of_random123():
    out = torch.empty(1, 4, dtype=torch.int64)
    philox.launch_fill(out, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 0, 0)
    assert [f"{word:08x}" for word in out[0].tolist()] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


@pytest.mark.parametrize("num", [1, 6, 1030])
def test_normals_are_those_of_the_reference(num):
    want = philox.philox_normal_reference(
        torch.tensor([0, 5, 2**40 + 1]), num, seed=7, stream=3, draw=torch.tensor([0, 9, 2**32 - 1])
    )
    assert_close(filled(torch.float32, num, 7, 3, 9), want.contiguous(), keyed=True)


@pytest.mark.parametrize(("shape", "dtype", "layout"), CASES)
@pytest.mark.parametrize(
    ("stored", "keyed", "channels_last"),
    [("uint8", True, True), ("uint8", False, False), ("float", False, True), ("float", True, False)],
)
def test_add_noise(shape, dtype, layout, stored, keyed, channels_last):
    x_0 = pixels(shape, layout) if stored == "uint8" else randn(shape, dtype, layout)
    noise, positions = (None, positions_of(len(x_0))) if keyed else (randn(shape, dtype, layout, seed=1), None)
    given = x_0, timesteps_of(len(x_0)), schedule(), noise, positions, *KEY, 7
    want, want_made = forward.add_noise_reference(*given, dtype, channels_last)
    x_t, made = forward.launch_add_noise(*given, dtype, channels_last)
    assert_close(x_t, want, keyed=keyed)
    if keyed:
        assert_close(made, want_made, keyed=True)


@pytest.mark.parametrize(("shape", "dtype", "layout"), CASES)
@pytest.mark.parametrize(
    ("keyed", "clip_range", "output_layout", "model_dtype", "x_0_dtype"),
    [
        (False, None, LAYOUTS[0], None, torch.float32),  # step
        (False, 0.5, LAYOUTS[1], None, torch.float32),
        (True, None, LAYOUTS[0], torch.bfloat16, None),  # reverse_step
        (True, 0.5, LAYOUTS[1], torch.bfloat16, torch.float32),
    ],
)
def test_denoise_step(shape, dtype, layout, keyed, clip_range, output_layout, model_dtype, x_0_dtype):
    output, sample = randn(shape, dtype, output_layout), randn(shape, dtype, layout, seed=2)
    noise, positions = (None, positions_of(len(sample))) if keyed else (randn(shape, dtype, layout, seed=1), None)
    given = output, sample, timesteps_of(len(sample)), coefficients(), noise, positions, *KEY, clip_range
    want = reverse.denoise_step_reference(*given, torch.float32, model_dtype, x_0_dtype)
    got = reverse.launch_denoise_step(*given, torch.float32, model_dtype, x_0_dtype)
    for mine, reference in zip(got, want, strict=True):
        assert mine.numel() == reference.numel()
        if mine.numel():
            assert_close(mine, reference, keyed=keyed)


@pytest.mark.parametrize("clip_range", [None, 1.0])
def test_denoise_step_hides_no_nan(clip_range):
    output, sample = torch.full((1, 1, 2, 2), torch.nan), randn((1, 1, 2, 2))
    given = output, sample, timesteps_of(1), coefficients(), sample, None, 0, 0, clip_range
    x_prev, _, _ = reverse.launch_denoise_step(*given, torch.float32, None, None)
    assert x_prev.isnan().all()


@pytest.mark.parametrize(("shape", "dtype", "layout"), [*CASES, ((2, 1, 131, 131), torch.float32, LAYOUTS[0])])
@pytest.mark.parametrize(
    ("prediction_type", "stored", "prediction_layout"),
    [
        ("epsilon", "uint8", LAYOUTS[1]),
        ("sample", "uint8", LAYOUTS[1]),
        ("v_prediction", "uint8", LAYOUTS[1]),
        ("v_prediction", "float", LAYOUTS[0]),
    ],
)
def test_denoising_mse_and_its_gradient(shape, dtype, layout, stored, prediction_type, prediction_layout):
    """131 x 131 elements take two parts."""
    prediction = randn(shape, dtype, prediction_layout)
    x_0 = pixels(shape, layout) if stored == "uint8" else randn(shape, dtype, layout, seed=2)
    given = prediction, x_0, randn(shape, torch.float32, layout, seed=1), timesteps_of(len(x_0)), schedule()
    got = loss.launch_denoising_mse(*given, prediction_type)
    assert_close(got, loss.denoising_mse_reference(*given, prediction_type), roundings=16)
    grad = torch.linspace(0.5, 2.0, len(x_0))
    want = loss.denoising_mse_backward_reference(grad, *given, prediction_type)
    assert_close(loss.launch_denoising_mse_backward(grad, *given, prediction_type), want)
