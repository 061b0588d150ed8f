"""lucidrains' `Unet` and `GaussianDiffusion`, from the published package denoising-diffusion-pytorch, as sides.

    pip install --no-deps denoising-diffusion-pytorch ema-pytorch einops

(`--no-deps`: the package requires torchvision, which it needs to read and save files only; where torchvision is not
installed, it gets a stand-in.) Its `Trainer` reads a folder; what is measured here are its steps, as for diffusers'
example. A unit is an image.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers.loops import NUM_IMAGES, autocast, device, digits, forever, synchronize
from benchmarks.worker import Measured

SIZE = {"dim": 32, "multiples": [1, 2, 4]}
"""the nearest to the paper's U-Net: 1.94 GFLOP an image trained on to its 1.82; 2.6 million parameters to 2.0"""
TINY_SIZE = {"dim": 8, "multiples": [1, 2]}
PACKAGES = ("denoising_diffusion_pytorch", "ema_pytorch", "einops")


def is_installed() -> bool:
    """Whether there is something to measure."""
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES)


def _package() -> Any:
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None:
        importlib.import_module("diffusers").UNet2DModel  # noqa: B018  it looks for a torchvision: let it look before
        torchvision = types.ModuleType("torchvision")
        for name in ("transforms", "utils"):
            setattr(torchvision, name, types.ModuleType(f"torchvision.{name}"))
        sys.modules["torchvision"] = torchvision
    return importlib.import_module("denoising_diffusion_pytorch")


def _diffusion(dim: int, multiples: list[int], size: int = 28) -> Any:
    torch.manual_seed(0)
    package = _package()
    unet = package.Unet(dim=dim, dim_mults=tuple(multiples), channels=1)
    return package.GaussianDiffusion(unet, image_size=size).to(device())


def _facts(diffusion: Any, size: int = 28) -> dict[str, Any]:
    with FlopCounterMode(display=False) as counter:
        diffusion(torch.zeros(2, 1, size, size, device=device())).backward()
    diffusion.zero_grad()
    parameters = sum(p.numel() for p in diffusion.model.parameters())
    return {"parameters": parameters, "GFLOP an image": round(counter.get_total_flops() / 2e9, 4)}


@contextmanager
def training(
    *, batch_size: int, steps: int, dim: int, multiples: list[int], size: int = 28, precision: str = "no"
) -> Iterator[Measured]:
    """The steps of its `Trainer` with the settings that it ships: Adam, clipping, weights averaged at every tenth step,
    the loss read at each; float32, or as its option has it."""
    diffusion = _diffusion(dim, multiples, size).train()
    optimizer = torch.optim.Adam(diffusion.parameters(), 1e-4, betas=(0.9, 0.99))
    averages = importlib.import_module("ema_pytorch").EMA(diffusion, beta=0.995, update_every=10)
    facts = _facts(diffusion, size)
    pixels = (digits(size, min(NUM_IMAGES, 2**22 // size**2)) + 1) / 2
    batches = forever(DataLoader(TensorDataset(pixels), batch_size, shuffle=True, drop_last=True))

    def run() -> int:
        for _ in range(steps):
            with autocast(precision):
                loss = diffusion(next(batches).to(device()))
            loss.item()
            loss.backward()
            clip_grad_norm_(diffusion.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            averages.update()
        synchronize()
        return steps * batch_size

    yield Measured(run, facts)


@contextmanager
def sampling(*, num_images: int, num_steps: int, dim: int, multiples: list[int]) -> Iterator[Measured]:
    """Its `p_sample` for the first steps of the chain of 1,000; float32."""
    diffusion = _diffusion(dim, multiples).eval()

    @torch.inference_mode()
    def run() -> int:
        images = torch.randn(num_images, 1, 28, 28, device=device())
        for t in range(999, 999 - num_steps, -1):
            images, _ = diffusion.p_sample(images, t)
        diffusion.unnormalize(images)
        synchronize()
        return num_images

    yield Measured(run, {"parameters": _facts(diffusion)["parameters"]})
