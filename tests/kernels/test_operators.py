"""The operators: what eager mode, torch.compile and autograd's checker see of them."""

import pytest
import torch
from torch._inductor import metrics

from fastddpm.kernels import philox
from fastddpm.kernels.add_noise import add_noise, add_noise_reference
from fastddpm.kernels.denoise_step import denoise_step, denoise_step_reference
from fastddpm.kernels.denoising_mse import PREDICTION_TYPES, denoising_mse, denoising_mse_reference
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


def jump_arguments(shape, dtype=torch.float32, layout=LAYOUTS[0], *, stored="float", keyed=False, channels_last=False):
    x_0 = pixels(shape, layout) if stored == "uint8" else randn(shape, dtype, layout)
    noise, positions = (None, positions_of(shape[0])) if keyed else (randn(shape, dtype, layout, seed=1), None)
    return x_0, timesteps_of(shape[0]), schedule(), noise, positions, *KEY, 7, dtype, channels_last


def step_arguments(shape, dtype=torch.float32, layout=LAYOUTS[0], *, keyed=False, clip_range=None, dtypes=None):
    output, sample = randn(shape, dtype, layout), randn(shape, dtype, layout, seed=2)
    noise, positions = (None, positions_of(shape[0])) if keyed else (randn(shape, dtype, layout, seed=1), None)
    dtypes = dtypes or (torch.float32, torch.bfloat16, dtype)
    return output, sample, timesteps_of(shape[0]), coefficients(), noise, positions, *KEY, clip_range, *dtypes


def loss_arguments(shape, dtype=torch.float32, layout=LAYOUTS[0], *, stored="float", prediction_type="epsilon"):
    x_0 = pixels(shape, layout) if stored == "uint8" else randn(shape, dtype, layout, seed=2)
    noise = randn(shape, torch.float32, layout, seed=1)
    return randn(shape, dtype, layout), x_0, noise, timesteps_of(shape[0]), schedule(), prediction_type


KINDS = [
    *((add_noise, add_noise_reference, jump_arguments, {"stored": s, "keyed": k, "channels_last": c})
      for s, k, c in [("float", False, True), ("uint8", True, True), ("uint8", True, False), ("float", True, False)]),
    *((denoise_step, denoise_step_reference, step_arguments, {"keyed": k, "clip_range": c, "dtypes": d})
      for k, c, d in [(False, None, None), (True, 1.0, None), (True, None, (torch.float32, None, None))]),
    *((denoising_mse, denoising_mse_reference, loss_arguments, {"stored": s, "prediction_type": p})
      for s in ("float", "uint8") for p in PREDICTION_TYPES),
]  # fmt: skip


def results_of(returned):
    return returned if isinstance(returned, tuple) else (returned,)


NAMES = [f"{k[0]._name}-" + "-".join(str(v) for v in k[3].values()) for k in KINDS]
FIRST = [NAMES.index(next(n for n in NAMES if n.startswith(k[0]._name))) for k in KINDS]
"""The place of each operator's first kind; torch's checker takes seconds for each, so that the others are slow."""
ARGUMENTS = ("operator", "reference", "arguments", "options")
over_kinds = pytest.mark.parametrize(ARGUMENTS, KINDS, ids=NAMES)
over_operators = pytest.mark.parametrize(
    ARGUMENTS, [pytest.param(*k, marks=() if i in FIRST else pytest.mark.slow) for i, k in enumerate(KINDS)], ids=NAMES
)


@over_kinds
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_operators_are_their_references_in_eager_mode(operator, reference, arguments, options, shape, dtype, layout):
    given = arguments(shape, dtype, layout, **options)
    for got, want in zip(results_of(operator(*given)), results_of(reference(*given)), strict=True):
        if want.numel():
            assert_close(got, want)
        assert got.numel() == want.numel()


@over_operators
def test_operators_are_sound(operator, reference, arguments, options):
    given = list(arguments((2, 3, 5, 9), torch.float32, LAYOUTS[1], **options))
    given[0] = given[0] if given[0].dtype == torch.uint8 else given[0].requires_grad_()
    torch.library.opcheck(operator, given)


@pytest.mark.parametrize("as_normals", [pytest.param(False, marks=pytest.mark.slow), True])
def test_philox_operator_is_sound(as_normals):
    torch.library.opcheck(philox._philox, (positions_of(3), 10, *KEY, torch.tensor([7]), as_normals))
    torch.library.opcheck(philox._philox, (positions_of(3), 9, *KEY, torch.tensor([7, 8, 9]), as_normals))


@over_operators
def test_operators_trace_into_one_graph(operator, reference, arguments, options):
    torch._dynamo.reset()
    given = arguments((2, 3, 7, 5), **options)
    traced = torch.compile(lambda *args: operator(*args), fullgraph=True, backend="aot_eager")(*given)
    for got, want in zip(results_of(traced), results_of(reference(*given)), strict=True):
        assert got.dtype == want.dtype
        assert torch.equal(got, want)


@pytest.mark.slow
@pytest.mark.parametrize("keyed", [False, True])
def test_inductor_sees_through_the_step(keyed):
    """One C++ kernel for the whole step, of given noise; the graph holds no call that it cannot fuse."""
    torch._dynamo.reset()
    metrics.reset()
    given = step_arguments((2, 3, 7, 5), keyed=keyed)
    try:
        got = torch.compile(lambda *args: denoise_step(*args), fullgraph=True)(*given)
    except torch._inductor.exc.InductorError as error:
        pytest.skip(f"Inductor cannot compile here: {error}")
    for mine, want in zip(got, denoise_step_reference(*given), strict=True):
        assert_close(mine, want, keyed=keyed)
    if not keyed:
        assert metrics.generated_kernel_count == 1


@over_kinds
def test_operators_have_the_gradients_of_their_references(operator, reference, arguments, options):
    grads = []
    for function in (operator, reference):
        given = [
            a.clone().requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() and a.dim() == 4 else a
            for a in arguments((2, 3, 7, 5), **options)
        ]
        leaves = [a for a in given if isinstance(a, torch.Tensor) and a.requires_grad]
        if not leaves:
            return
        results = [r for r in results_of(function(*given)) if r.requires_grad and r.numel()]
        sum((i + 1) * r.float().square().sum() for i, r in enumerate(results)).backward()
        grads.append([a.grad if a.grad is not None else torch.zeros(()) for a in leaves])
    assert any(want.abs().max() > 0 for want in grads[1])
    for got, want in zip(*grads, strict=True):
        assert torch.allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("stored", ["uint8", "float"])
def test_loss_gradient_is_that_of_finite_differences(prediction_type, stored):
    """The loss is quadratic: central differences are exact but for rounding, with a step as large as one likes."""
    prediction, *others = loss_arguments((2, 1, 3, 3), stored=stored, prediction_type=prediction_type)
    weights = torch.tensor([1.0, -3.0])
    (want,) = torch.autograd.grad((denoising_mse(prediction.requires_grad_(), *others) * weights).sum(), prediction)
    for index in range(prediction.numel()):
        step = torch.zeros(prediction.numel()).index_fill_(0, torch.tensor([index]), 1.0).view_as(prediction)
        up, down = (denoising_mse(prediction.detach() + sign * step, *others) for sign in (1, -1))
        numerical = ((up - down) * weights).sum() / 2
        assert abs(numerical - want.flatten()[index]) < 1e-5


def test_gradients_keep_the_dtype_and_the_layout_of_what_they_belong_to():
    given = [
        a.bfloat16().requires_grad_() if isinstance(a, torch.Tensor) and a.dim() == 4 else a
        for a in step_arguments((2, 1, 7, 7))
    ]
    denoise_step(*given)[1].sum().backward()
    assert [a.grad.dtype for a in given if isinstance(a, torch.Tensor) and a.requires_grad] == [torch.bfloat16] * 3
    prediction, *others = loss_arguments((2, 3, 5, 5), torch.bfloat16, torch.channels_last)
    denoising_mse(prediction.requires_grad_(), *others).sum().backward()
    assert prediction.grad.dtype == torch.bfloat16
    assert prediction.grad.is_contiguous(memory_format=torch.channels_last)


def test_add_noise_is_equation_2_in_float64():
    x_0, timesteps, table, noise, *_ = given = jump_arguments((3, 3, 8, 5))
    got, _ = add_noise(*given)
    a, s = (row.double()[timesteps].view(-1, 1, 1, 1) for row in table)
    want = a * x_0.double() + s * noise.double()
    assert_close(got, want.float())


def test_pixels_are_noised_as_the_unit_range_they_stand_for():
    uint8 = jump_arguments((3, 3, 8, 5), stored="uint8")
    as_float = (uint8[0] / 127.5 - 1, *uint8[1:])
    assert torch.equal(add_noise(*uint8)[0], add_noise(*as_float)[0])


def test_keyed_noise_is_the_same_in_every_memory_format():
    for layout in LAYOUTS:
        for channels_last in (False, True):
            given = jump_arguments((3, 3, 8, 5), layout=layout, keyed=True, channels_last=channels_last)
            x_t, made = add_noise(*given)
            want = philox.philox_normal(given[4], 120, seed=KEY[0], stream=KEY[1], draw=7).view(3, 3, 8, 5)
            assert torch.equal(made, want)
            assert x_t.is_contiguous(memory_format=LAYOUTS[channels_last])


def test_denoise_step_returns_what_is_wanted():
    x_prev, model_input, x_0 = denoise_step(*step_arguments((2, 1, 7, 7), torch.bfloat16))
    assert (x_prev.dtype, model_input.dtype, x_0.dtype) == (torch.float32, torch.bfloat16, torch.bfloat16)
    assert torch.equal(x_prev.bfloat16(), model_input)
    for dtypes in ((torch.float32, None, None), (torch.bfloat16, None, None)):
        alone, *others = denoise_step(*step_arguments((2, 1, 7, 7), torch.bfloat16, dtypes=dtypes))
        assert torch.equal(alone, x_prev.to(dtypes[0]))
        assert [other.numel() for other in others] == [0, 0]


def test_denoise_step_clips_where_asked():
    clipped = denoise_step(*step_arguments((3, 3, 8, 5), clip_range=0.1))[2]
    free = denoise_step(*step_arguments((3, 3, 8, 5)))[2]
    assert clipped.abs().max() == pytest.approx(0.1)
    assert torch.equal(clipped, free.clamp(-0.1, 0.1))


@pytest.mark.parametrize("clip_range", [None, 1.0])
def test_denoise_step_hides_no_nan(clip_range):
    output, *others = step_arguments((1, 1, 4, 4), clip_range=clip_range)
    assert denoise_step(torch.full_like(output, torch.nan), *others)[0].isnan().all()


@pytest.mark.parametrize("shape", [(5, 1, 7, 7), (5, 3, 150, 150)])
def test_an_images_step_does_not_depend_on_its_batch(shape):
    """150 x 150 in colour is more than one piece, and no multiple of it."""
    given = step_arguments(shape, keyed=True)
    whole = denoise_step(*given)
    for i in range(5):
        alone = denoise_step(*(a[i : i + 1] if isinstance(a, torch.Tensor) and len(a) == 5 else a for a in given))
        for got, want in zip(alone, whole, strict=True):
            assert torch.equal(got[0], want[i])


def test_loss_refuses_another_prediction_type():
    with pytest.raises(ValueError, match="prediction_type is 'score'; use one of epsilon, sample, v_prediction"):
        denoising_mse(*loss_arguments((1, 1, 2, 2), prediction_type="score"))
