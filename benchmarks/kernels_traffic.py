"""What the kernels move and launch beside eager PyTorch: counted, not guessed, without a GPU.

    python -m benchmarks.kernels_traffic        # the table of a kernels record in benchmarks/results

Bytes an element: of ours, the images among a kernel's arguments; of eager code, what every aten operation on images
reads and writes, seen by a TorchDispatchMode (views move nothing; a tensor that an operation reads twice counts twice).
The roofline times are these bytes over a bandwidth: arithmetic, not measurements.
"""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor
from torch._inductor import compile_fx, metrics
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import kernels_aot as aot
from fastddpm.kernels.add_noise import add_noise_reference
from fastddpm.kernels.denoise_step import denoise_step_reference
from fastddpm.kernels.denoising_mse import denoising_mse_reference

H100_BYTES_A_SECOND = 3.35e12
SHAPE = (8, 3, 64, 64)
ELEMENTS = torch.Size(SHAPE).numel()


class Traffic(TorchDispatchMode):
    """Counts the operations on images, and the bytes they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.launches = 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        read, written = (
            [x for x in tree_leaves(tree) if isinstance(x, Tensor) and x.numel() >= ELEMENTS]
            for tree in ((args, kwargs), result)
        )
        allocates = function in (torch.ops.aten.empty_like.default, torch.ops.aten.empty.memory_format)
        if (read or written) and not function.is_view and not allocates:
            self.launches += 1
            self.bytes += sum(x.nbytes for x in (*read, *written))
        return result


def eager(call: Callable[[], Any]) -> tuple[float, int]:
    """(bytes an element, operations) of a call."""
    with Traffic() as traffic:
        call()
    return traffic.bytes / ELEMENTS, traffic.launches


def ours(names: str) -> tuple[float, int]:
    """(bytes an element, launches) of variants of benchmarks/kernels_aot.py, and of `randn`."""
    sizes = [
        4 if name == "randn" else sum(x.itemsize for _, x in aot.VARIANTS[name]().elements())
        for name in names.split(" + ")
    ]
    return float(sum(sizes)), len(sizes)


def inductor(reference: Callable, *arguments: Any) -> tuple[float, int]:
    """(bytes an element, kernels) of the compiled reference, by `torch._inductor.metrics` on its CPU backend."""
    torch._dynamo.reset()
    metrics.reset()
    compile_fx.inductor_metrics_log.setLevel(logging.INFO)  # it counts bytes only where it would log them
    compile_fx.inductor_metrics_log.propagate = False
    with torch._inductor.config.patch(force_disable_caches=True):
        torch.compile(reference, fullgraph=True)(*arguments)
    return metrics.num_bytes_accessed / ELEMENTS, metrics.generated_kernel_count


def cases() -> list[tuple[str, str, Callable[[], Any], tuple[Any, ...] | None]]:
    """(what, our variant, eager code, reference with arguments)."""
    sample, output, noise = (torch.randn(SHAPE) for _ in range(3))
    pixels, t = torch.zeros(SHAPE, dtype=torch.uint8), torch.arange(SHAPE[0])
    positions, table, jump = torch.arange(SHAPE[0]), torch.rand(1000, 5), torch.rand(2, 1000)
    stock, generator = DDPMScheduler(clip_sample=False), torch.Generator().manual_seed(0)
    given = (output, sample, t, table, noise, None, 0, 7, None)
    keyed = (output, sample, t, table, None, positions, 0, 7, None)
    half, bf16 = output.bfloat16(), torch.bfloat16

    def stock_loss() -> None:
        x_0 = pixels.float() / 127.5 - 1
        prediction = half.detach().requires_grad_()
        (prediction.float() - stock.get_velocity(x_0, noise, t)).square().flatten(1).mean(1).sum().backward()

    return [
        (
            "step, a generator's noise, x_{t-1} and x_0 in fp32: `DDPMScheduler.step`",
            "randn + denoise_step: fp32, given -> x_prev, x_0",
            lambda: stock.step(output, 500, sample, generator=generator),
            (denoise_step_reference, *given, torch.float32, None, torch.float32),
        ),
        (
            "step with the next bf16 input: `DDPMScheduler.step` and two casts",
            "denoise_step: bf16, keyed -> x_prev, bf16 input",
            lambda: stock.step(half.float(), 500, sample, generator=generator).prev_sample.to(bf16),
            (denoise_step_reference, half, *keyed[1:], torch.float32, bf16, None),
        ),
        (
            "x_t from uint8: cast, scale, `randn`, `DDPMScheduler.add_noise`",
            "add_noise: uint8, keyed -> fp32",
            lambda: stock.add_noise(pixels.float() / 127.5 - 1, torch.randn(SHAPE, generator=generator), t),
            (add_noise_reference, pixels, t, jump, None, positions, 0, 0, 0, torch.float32, False),
        ),
        (
            "loss of v of a bf16 prediction, forward and backward (Inductor: forward)",
            "denoising_mse: bf16, v_prediction + denoising_mse backward: bf16, v_prediction",
            stock_loss,
            (denoising_mse_reference, half, pixels, noise, t, jump, "v_prediction"),
        ),
    ]


def main() -> None:
    warnings.simplefilter("ignore")
    print("| what | | bytes an element | launches | ps an element at 3.35 TB/s |\n|---|---|---|---|---|")
    for what, variant, call, compiled in cases():
        rows = {"eager": eager(call), f"ours ({variant})": ours(variant)}
        if compiled:
            rows["Inductor for our reference, CPU backend"] = inductor(*compiled)
        for name, (moved, launches) in rows.items():
            print(f"| {what} | {name} | {moved:.1f} | {launches} | {moved / H100_BYTES_A_SECOND * 1e12:.1f} |")


if __name__ == "__main__":
    main()
