"""What torch.compile would be given on a GPU: traced on fake CUDA tensors, an operator is a launch of its kernel."""

import pytest
import torch
from torch._functorch.aot_autograd import aot_export_joint_simple
from torch._subclasses import FakeTensorMode

from fastddpm.kernels.add_noise import add_noise
from fastddpm.kernels.denoise_step import denoise_step
from fastddpm.kernels.denoising_mse import denoising_mse

triton = pytest.importorskip("triton", reason="Triton is not installed here")


class H100:
    """As much of a driver as tracing asks for: it tells what a kernel writes to."""

    def get_current_target(self):
        return triton.backends.compiler.GPUTarget("cuda", 90, 32)


@pytest.fixture(autouse=True)
def _driver(monkeypatch):
    monkeypatch.setattr(triton.runtime.driver, "_active", H100())


def empty(*shape, dtype=torch.float32):
    return torch.empty(*shape, dtype=dtype, device="cuda")


def launches_of(function):
    with FakeTensorMode():
        images = [empty(2, 3, 8, 8) for _ in range(3)]
        integers = [empty(2, dtype=torch.int64) for _ in range(2)]
        graph = aot_export_joint_simple(
            lambda *given: list(function(*given)), (*images, *integers, empty(2, 10), empty(10, 5)), trace_joint=False
        )
    return [node for node in graph.graph.nodes if "triton_kernel_wrapper" in str(node.target)]


def keyed_jump(x_0, _, __, t, positions, table, ___):
    return add_noise(x_0, t, table, None, positions, 0, 0, 0, torch.bfloat16, True)


def given_jump(x_0, noise, _, t, __, table, ___):
    return add_noise(x_0, t, table, noise, None, 0, 0, 0, torch.float32, False)[:1]


def keyed_step(output, sample, _, t, positions, __, table):
    return denoise_step(output, sample, t, table, None, positions, 0, 7, 1.0, torch.float32, torch.bfloat16, None)[:2]


def given_step(output, sample, noise, t, _, __, table):
    return denoise_step(output, sample, t, table, noise, None, 0, 7, None, torch.float32, None, torch.float32)[::2]


def loss(prediction, x_0, noise, t, _, table, __):
    return (denoising_mse(prediction, x_0, noise, t, table, "v_prediction"),)


@pytest.mark.parametrize("function", [keyed_jump, given_jump, keyed_step, given_step, loss])
def test_an_operator_is_one_launch(function):
    assert len(launches_of(function)) == 1
