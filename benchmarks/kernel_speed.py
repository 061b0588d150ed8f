"""How fast is each kernel?  python -m benchmarks.kernel_speed

Each operator (on a GPU: its Triton kernel) against its reference run eagerly, the reference under `torch.compile`, and
what diffusers runs in its place. A unit is a GB that must be moved: every input read once and every output written
once, counted from the tensors, so that on a GPU the rate compares with the memory's own.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from benchmarks.harness import Side, interleave, paired, parser, row, write_record
from benchmarks.peers.loops import device, synchronize
from benchmarks.worker import Measured
from fastddpm.draws import Stream
from fastddpm.kernels.add_noise import add_noise, add_noise_reference
from fastddpm.kernels.denoise_step import denoise_step, denoise_step_reference
from fastddpm.kernels.denoising_mse import denoising_mse, denoising_mse_reference

OPERATOR, EAGER, COMPILED, DIFFUSERS = "operator", "reference, eager", "reference, compiled", "diffusers, eager"
CASES = ("add_noise, keyed", "add_noise, given", "denoise_step, keyed", "denoise_step, given", "denoising_mse")
SHAPES = ([128, 1, 28, 28], [64, 3, 64, 64], [64, 3, 256, 256])
PEAK_GB = {"H100 80GB HBM3": 3350, "H200": 4800, "A100-SXM4-80GB": 2039, "A100-SXM4-40GB": 1555, "MI300X": 5300}
"""GB/s of a device's memory, from the vendors' data sheets; of others nothing is claimed"""


def main() -> None:
    asked = parser(__doc__, "kernel-speed")
    asked.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    asked.add_argument("--no_compile", action="store_true", help="leave out what is compiled")
    given = asked.parse_args()
    rows = [line for shape in ([[2, 1, 7, 7]] if given.tiny else SHAPES) for line in measured_at(shape, given)]
    write_record(given.out, "Kernel speed", rows, settings=vars(given) | {"out": None})


def measured_at(shape: list[int], given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of one shape."""
    for case in given.cases:
        ways = [OPERATOR, EAGER, *([] if given.no_compile else [COMPILED]), *([DIFFUSERS] if "given" in case else [])]
        arguments = {"case": case, "shape": shape, "repeats": 1 if given.tiny else repeats(shape)}
        sides = {way: Side("benchmarks.kernel_speed:call", arguments | {"way": way}) for way in ways}
        runs = interleave(sides, rounds=given.rounds, title=f"{case}, {shape}")
        for way, found in runs.items():
            share = None if (peak := peak_gb()) is None else round(found.spread()["p50"] / peak, 3)
            times = paired(runs, OPERATOR, way)["p50"]
            name = f"{case}, {'x'.join(map(str, shape))}: {way}"
            yield row(name, found, "GB/s", **{"operator is faster by": times, "share of peak": share or "n/a"})


def repeats(shape: list[int]) -> int:
    """Calls a round: about a GB on a GPU, a sixteenth of that on a CPU."""
    elements = shape[0] * shape[1] * shape[2] * shape[3]
    return max(1, (2**26 if device().type == "cuda" else 2**22) // elements)


def peak_gb() -> float | None:
    """Of the device's memory; None: not known."""
    if device().type != "cuda":
        return None
    name = torch.cuda.get_device_name()
    return next((peak for known, peak in PEAK_GB.items() if known in name), None)


@contextmanager
def call(*, case: str, way: str, shape: list[int], repeats: int) -> Iterator[Measured]:
    """One way of doing one case; `repeats` calls a round."""
    torch.manual_seed(0)
    work, tensors = {"add_noise": noising, "denoise_step": denoising, "denoising_mse": losing}[case.split(",")[0]](
        case, way, shape
    )
    results = work()
    gigabytes = sum(t.numel() * t.element_size() for t in (*tensors, *results)) / 1e9

    def run() -> float:
        for _ in range(repeats):
            work()
        synchronize()
        return repeats * gigabytes

    yield Measured(run, {"MB a call": round(gigabytes * 1000, 3)})


Work = tuple[Callable[[], tuple[Tensor, ...]], tuple[Tensor, ...]]
"""what is called, and the tensors of images that it must read"""


def noising(case: str, way: str, shape: list[int]) -> Work:
    """x_t in bfloat16 and channels_last from pixels; the noise is kept for the loss where it is keyed."""
    x_0 = torch.randint(0, 256, shape, dtype=torch.uint8, device=device())
    noise = torch.randn(shape, device=device()) if "given" in case else None
    timesteps = torch.randint(0, 1000, shape[:1], device=device())
    if way == DIFFUSERS:
        scheduler, pixels = DDPMScheduler(), x_0.float().div_(127.5).sub_(1.0)
        assert noise is not None, "diffusers has no keyed noise"
        return lambda: (scheduler.add_noise(pixels, noise, timesteps),), (pixels, noise)
    positions = None if noise is not None else torch.arange(shape[0], device=device())
    keys = (positions, 0, int(Stream.TRAIN_NOISE), 0)
    table = torch.rand(2, 1000, device=device())
    function = chosen(way, add_noise, add_noise_reference)
    return (
        lambda: function(x_0, timesteps, table, noise, *keys, torch.bfloat16, True),
        (x_0,) if noise is None else (x_0, noise),
    )


def denoising(case: str, way: str, shape: list[int]) -> Work:
    """x_{t-1} in float32 and the model's next input in bfloat16, from its output in bfloat16."""
    sample, output = torch.randn(shape, device=device()), torch.randn(shape, device=device()).bfloat16()
    noise = torch.randn(shape, device=device()) if "given" in case else None
    if way == DIFFUSERS:  # draws its noise itself
        scheduler, generator = DDPMScheduler(), torch.Generator(device()).manual_seed(0)
        return lambda: (scheduler.step(output.float(), 500, sample, generator=generator)[0],), (sample, output)
    timesteps = torch.randint(0, 1000, shape[:1], device=device())
    positions = None if noise is not None else torch.arange(shape[0], device=device())
    keys = (positions, 0, int(Stream.STEP_NOISE))
    table = torch.rand(1000, 5, device=device())
    function = chosen(way, denoise_step, denoise_step_reference)
    dtypes = (torch.float32, torch.bfloat16, None)
    return (
        lambda: function(output, sample, timesteps, table, noise, *keys, None, *dtypes),
        (sample, output) if noise is None else (sample, output, noise),
    )


def losing(case: str, way: str, shape: list[int]) -> Work:
    """The loss of each image of a v-prediction in bfloat16, and its gradient."""
    prediction = torch.randn(shape, device=device()).bfloat16().requires_grad_()
    x_0 = torch.randint(0, 256, shape, dtype=torch.uint8, device=device())
    noise, table = torch.randn(shape, device=device()), torch.rand(2, 1000, device=device())
    timesteps = torch.randint(0, 1000, shape[:1], device=device())
    function = chosen(way, denoising_mse, denoising_mse_reference)

    def work() -> tuple[Tensor, ...]:
        losses = function(prediction, x_0, noise, timesteps, table, "v_prediction")
        (grad,) = torch.autograd.grad(losses.mean(), prediction)
        return losses, grad

    return work, (prediction, x_0, noise, prediction, x_0, noise)  # the backward pass reads them again


def chosen(way: str, operator: Callable[..., Any], reference: Callable[..., Any]) -> Callable[..., Any]:
    """What is called."""
    return {OPERATOR: operator, EAGER: reference, COMPILED: torch.compile(reference)}[way]


if __name__ == "__main__":
    main()
