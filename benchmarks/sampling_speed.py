"""How fast are images drawn?  python -m benchmarks.sampling_speed

The paper's U-Net, the same weights for all sides, 64 images of 28x28: the first 50 steps of the 1000-step chain, timed
and named so, by `FastDDPMPipeline` (keyed noise) and by stock `DDPMPipeline` (a generator on the device), both in
bfloat16 and in float32, channels_last; beside them lucidrains' `p_sample` with a network of about that size
(`peers/lucidrains.py`; left out if it is not installed). A unit is an image through those steps. Then one scheduler
step by itself, at (64, 3, 256, 256) in float32 with a generator: ours against `DDPMScheduler.step`; a unit is a step.
What bfloat16 does to the pictures is measured by `benchmarks.precision_quality`.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler
from torch import Tensor

from benchmarks.harness import Bar, Side, interleave, paired, parser, row, write_record
from benchmarks.peers import lucidrains
from benchmarks.peers.loops import device, synchronize
from benchmarks.worker import Measured
from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, PaperUNet2DModel

T = 1000
OURS_LOW, OURS_FULL = "FastDDPMPipeline, bfloat16", "FastDDPMPipeline, float32"
STOCK_LOW, STOCK = "DDPMPipeline, bfloat16", "DDPMPipeline, float32"
LUCIDRAINS = "lucidrains' Unet and GaussianDiffusion, float32"
OUR_STEP, STOCK_STEP, NOISE = "FusedDDPMScheduler.step", "DDPMScheduler.step", "randn alone"


def main() -> None:
    asked = parser(__doc__, "sampling-speed")
    asked.add_argument("--num_images", type=int, default=64)
    asked.add_argument("--num_steps", type=int, default=50, help="of the 1000")
    given = asked.parse_args()
    pipelines = interleave(pipeline_sides(given), rounds=given.rounds, title="sampling")
    steps = interleave(step_sides(given), rounds=given.rounds, title="scheduler steps")
    rows = [row(name, runs, f"images/s ({given.num_steps} of {T} steps)") for name, runs in pipelines.items()]
    rows += [row(name, runs, "steps/s") for name, runs in steps.items()]
    bars = [
        Bar("ours in bfloat16 against stock in float32", paired(pipelines, OURS_LOW, STOCK)["p50"], 2.0),
        Bar("both in float32", paired(pipelines, OURS_FULL, STOCK)["p50"], 1.1),
        Bar("scheduler step against stock", paired(steps, OUR_STEP, STOCK_STEP)["p50"], 3.0),
    ]
    write_record(given.out, "Sampling speed", rows, bars, settings=vars(given) | {"out": None})


def pipeline_sides(given: argparse.Namespace) -> dict[str, Side]:
    """The pipelines, and lucidrains' where it is installed."""
    length = {"num_images": given.num_images, "num_steps": given.num_steps}
    size = length | {"widths": [4, 8, 16] if given.tiny else [64, 128, 256]}
    found = {
        OURS_LOW: Side("benchmarks.sampling_speed:ours", size | {"dtype": "bfloat16"}),
        OURS_FULL: Side("benchmarks.sampling_speed:ours", size | {"dtype": "float32"}),
        STOCK_LOW: Side("benchmarks.sampling_speed:stock", size | {"dtype": "bfloat16"}),
        STOCK: Side("benchmarks.sampling_speed:stock", size | {"dtype": "float32"}),
    }
    if lucidrains.is_installed():
        of_theirs = length | (lucidrains.TINY_SIZE if given.tiny else lucidrains.SIZE)
        found[LUCIDRAINS] = Side("benchmarks.peers.lucidrains:sampling", of_theirs)
    return found


def step_sides(given: argparse.Namespace) -> dict[str, Side]:
    """One step of both schedulers, and the noise that both draw alike."""
    shape = [2, 3, 8, 8] if given.tiny else [64, 3, 256, 256]
    names = {OUR_STEP: "FusedDDPMScheduler", STOCK_STEP: "DDPMScheduler", NOISE: None}
    return {
        name: Side("benchmarks.sampling_speed:scheduler_step", {"shape": shape, "scheduler": scheduler})
        for name, scheduler in names.items()
    }


class FirstSteps(DDPMScheduler):
    """Stock, but that `set_timesteps` keeps the first so many of all T."""

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None, **_: Any) -> None:
        super().set_timesteps(T, device)
        self.timesteps: Tensor = self.timesteps[:num_inference_steps]


def network(widths: list[int]) -> PaperUNet2DModel:
    """The paper's network, in eval mode."""
    torch.manual_seed(0)
    return PaperUNet2DModel(sample_size=28, block_out_channels=tuple(widths)).eval().to(device())


@contextmanager
def ours(*, num_images: int, num_steps: int, widths: list[int], dtype: str) -> Iterator[Measured]:
    """Our pipeline, as `fastddpm sample` uses it."""
    unet = network(widths).to(dtype=getattr(torch, dtype), memory_format=torch.channels_last)
    pipeline = FastDDPMPipeline(unet, FusedDDPMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    timesteps = list(range(T - 1, T - 1 - num_steps, -1))

    def run() -> int:
        pipeline(seeds=range(num_images), timesteps=timesteps, output_type="pt")
        synchronize()
        return num_images

    yield Measured(run, {})


@contextmanager
def stock(*, num_images: int, num_steps: int, widths: list[int], dtype: str) -> Iterator[Measured]:
    """Diffusers' pipeline and scheduler."""
    unet = network(widths).to(dtype=getattr(torch, dtype), memory_format=torch.channels_last)
    pipeline = DDPMPipeline(unet, FirstSteps(clip_sample=False))
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator(device()).manual_seed(0)

    def run() -> int:
        pipeline(num_images, generator, num_inference_steps=num_steps, output_type="pt")
        synchronize()
        return num_images

    yield Measured(run, {})


@contextmanager
def scheduler_step(*, shape: list[int], scheduler: str | None) -> Iterator[Measured]:
    """A step in the middle of the chain, noise from a generator; without a scheduler, the noise alone."""
    torch.manual_seed(0)
    sample, output = torch.randn(shape, device=device()), torch.randn(shape, device=device())
    generator = torch.Generator(device()).manual_seed(0)
    made = (
        {"FusedDDPMScheduler": FusedDDPMScheduler, "DDPMScheduler": DDPMScheduler}[scheduler]() if scheduler else None
    )

    def run() -> int:
        if made is None:
            torch.randn(shape, generator=generator, device=device())
        else:
            made.step(output, T // 2, sample, generator=generator)
        synchronize()
        return 1

    yield Measured(run, {})


if __name__ == "__main__":
    main()
