"""The kernels on a GPU: microseconds, GB/s and share of the bandwidth, beside eager PyTorch and diffusers.

    python -m benchmarks.kernels_gpu

It needs a CUDA or ROCm device and Triton; without one it says so and measures nothing.
"""

import sys
from collections.abc import Callable

import torch
from diffusers import DDPMScheduler

from benchmarks.kernels_traffic import H100_BYTES_A_SECOND
from fastddpm import FusedDDPMScheduler
from fastddpm.draws import Stream

SHAPES = [(128, 1, 28, 28), (128, 3, 64, 64), (64, 3, 256, 256)]


def setup(shape: tuple[int, ...]) -> dict[str, tuple[Callable, Callable, float]]:
    """what -> (ours, eager, bytes an element that ours moves)."""
    stock = DDPMScheduler(clip_sample=False)
    fused = FusedDDPMScheduler.from_config(stock.config)
    sample, output = (torch.randn(shape, device="cuda") for _ in range(2))
    pixels = torch.zeros(shape, dtype=torch.uint8, device="cuda")
    t, positions = torch.randint(0, 1000, shape[:1], device="cuda"), torch.arange(shape[0], device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    half, key = output.bfloat16(), {"seed": 0, "stream": Stream.TRAIN_NOISE}

    def stock_jump() -> torch.Tensor:
        return stock.add_noise(pixels.float() / 127.5 - 1, torch.randn_like(sample), t)

    return {
        "step, a generator's noise": (
            lambda: fused.step(output, 500, sample, generator=generator),
            lambda: stock.step(output, 500, sample, generator=generator),
            24.0,
        ),
        "reverse_step, bf16, keyed": (
            lambda: fused.reverse_step(half, 500, sample, positions=positions),
            lambda: stock.step(half.float(), 500, sample, generator=generator).prev_sample.bfloat16(),
            12.0,
        ),
        "q_sample from uint8, keyed": (lambda: fused.q_sample(pixels, t, positions, **key), stock_jump, 9.0),
    }


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("kernels_gpu: n/a: no CUDA or ROCm device here; nothing was measured")
    import triton.testing

    name = torch.cuda.get_device_name()
    peak = H100_BYTES_A_SECOND if "H100" in name else None
    print(f"{name}, torch {torch.__version__}, triton {triton.__version__}; medians")
    print("| shape | what | eager, us | ours, us | GB/s | share of the bandwidth |\n|---|---|---|---|---|---|")
    for shape in SHAPES:
        for what, (ours, eager, size) in setup(shape).items():
            ours_us, eager_us = (1e3 * triton.testing.do_bench(f, return_mode="median") for f in (ours, eager))
            rate = size * torch.Size(shape).numel() / ours_us * 1e6
            share = "n/a" if peak is None else f"{rate / peak:.2f}"
            print(f"| {shape} | {what} | {eager_us:.1f} | {ours_us:.1f} | {rate / 1e9:.0f} | {share} |")


if __name__ == "__main__":
    main()
