"""The operators: what torch.compile and autograd's checker see of them."""

import pytest
import torch

from fastddpm.kernels.add_noise import add_noise, add_noise_reference
from fastddpm.kernels.denoise_step import denoise_step, denoise_step_reference

SHAPES = [(1, 1, 1, 1), (2, 1, 7, 7), (3, 3, 8, 5)]  # one pixel; odd; three channels, not square


def jump_arguments(shape, dtype=torch.float32):
    torch.manual_seed(0)
    signal = torch.linspace(0.99, 0.1, 10)
    return (
        torch.randn(shape).to(dtype), torch.randn(shape).to(dtype), torch.randint(0, 10, shape[:1]),
        signal, (1 - signal**2).sqrt(),
    )  # fmt: skip


def step_arguments(shape, dtype=torch.float32, clip_range=None):
    torch.manual_seed(0)
    draw = [torch.randn(shape).to(dtype) for _ in range(3)]
    return (*draw, torch.randint(0, 10, shape[:1]), torch.rand(10, 5), clip_range, torch.bfloat16)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_add_noise_operator_is_sound(shape, dtype):
    torch.library.opcheck(add_noise, jump_arguments(shape, dtype))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("clip_range", [None, 1.0])
def test_denoise_step_operator_is_sound(shape, clip_range):
    torch.library.opcheck(denoise_step, step_arguments(shape, torch.float32, clip_range))


@pytest.mark.parametrize(
    ("operator", "reference", "arguments"),
    [
        (add_noise, add_noise_reference, jump_arguments((2, 1, 7, 7))),
        (denoise_step, denoise_step_reference, step_arguments((2, 1, 7, 7))),
    ],
)
def test_operators_trace_into_one_graph(operator, reference, arguments):
    traced = torch.compile(lambda *given: operator(*given), fullgraph=True, backend="aot_eager")(*arguments)
    expected = reference(*arguments)
    for got, want in zip(*(r if isinstance(r, tuple) else (r,) for r in (traced, expected)), strict=True):
        assert got.dtype == want.dtype
        assert torch.equal(got, want)


def test_add_noise_is_equation_2_in_float64():
    x_0, noise, timesteps, signal, spread = jump_arguments((3, 3, 8, 5))
    got = add_noise(x_0, noise, timesteps, signal, spread)
    a, s = (table.double()[timesteps].view(-1, 1, 1, 1) for table in (signal, spread))
    want = a * x_0.double() + s * noise.double()
    assert (got - want).abs().max() <= 4 * torch.finfo(torch.float32).eps * want.abs().max()
    assert not torch.allclose(torch.zeros_like(got), got)


def test_denoise_step_returns_the_next_input_in_the_models_dtype():
    x_prev, model_input, x_0 = denoise_step(*step_arguments((2, 1, 7, 7), torch.bfloat16))
    assert (x_prev.dtype, model_input.dtype, x_0.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    assert torch.equal(x_prev.bfloat16(), model_input)


def test_denoise_step_clips_where_asked():
    clipped = denoise_step(*step_arguments((3, 3, 8, 5), clip_range=0.1))[2]
    free = denoise_step(*step_arguments((3, 3, 8, 5)))[2]
    assert clipped.abs().max() == pytest.approx(0.1)
    assert torch.equal(clipped, free.clamp(-0.1, 0.1))


@pytest.mark.parametrize("clip_range", [None, 0.5])
def test_operators_have_the_gradients_of_their_references(clip_range):
    pairs = [
        (add_noise, add_noise_reference, jump_arguments((2, 1, 7, 7))),
        (denoise_step, denoise_step_reference, step_arguments((2, 1, 7, 7), clip_range=clip_range)),
    ]
    for operator, reference, arguments in pairs:
        grads = []
        for function in (operator, reference):
            given = [a.clone().requires_grad_(a.is_floating_point()) if i < 3 else a for i, a in enumerate(arguments)]
            results = function(*given)
            weighted = [(i + 1) * r.float().square().sum() for i, r in enumerate(results)]
            (sum(weighted) if isinstance(results, tuple) else results.square().sum()).backward()
            grads.append([a.grad for a in given[:3] if a.is_floating_point()])
        for got, want in zip(*grads, strict=True):
            assert want.abs().max() > 0
            assert torch.allclose(got, want, rtol=1e-5, atol=1e-5)


def test_gradients_keep_the_dtype_of_what_they_belong_to():
    given = [a.bfloat16().requires_grad_() if a.dim() == 4 else a for a in step_arguments((2, 1, 7, 7))[:5]]
    denoise_step(*given, None, torch.bfloat16)[1].sum().backward()
    assert [a.grad.dtype for a in given[:3]] == [torch.bfloat16] * 3
