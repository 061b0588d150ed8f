"""Training loops without a toolkit. Each setup is a side of `benchmarks.harness`; a unit is an image."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.worker import Measured
from fastddpm import PaperUNet2DModel
from fastddpm.config import DataConfig
from fastddpm.data import load_splits, to_unit_range
from fastddpm.training.cost import flops_per_image

NUM_IMAGES = 4_000


def device() -> torch.device:
    """The accelerator, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    """Wait for the accelerator."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def digits(size: int = 28, count: int = NUM_IMAGES) -> Tensor:
    """Packaged digits: (count, 1, size, size), float32, in [-1, 1]."""
    train = load_splits(DataConfig(num_images=NUM_IMAGES), seed=0, show_progress=False).train
    pixels = to_unit_range(torch.from_numpy(train.source.images[train.indices_of(torch.arange(count)).numpy()]))
    return pixels if size == 28 else F.interpolate(pixels, (size, size))


def autocast(precision: str) -> AbstractContextManager[Any]:
    """Around what is computed in bf16 or fp16; nothing in fp32."""
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return nullcontext() if low is None else torch.autocast(device().type, low)


def forever(loader: DataLoader) -> Iterator[Tensor]:
    """Batches of one epoch after the other."""
    while True:
        for (batch,) in loader:
            yield batch


def measured(step: Callable[[], Any], steps: int, batch_size: int, unet: nn.Module, size: int = 28) -> Measured:
    """`steps` training steps a round."""

    def run() -> int:
        for _ in range(steps):
            step()
        synchronize()
        return steps * batch_size

    run_facts = {"parameters": sum(p.numel() for p in unet.parameters())}
    flops = flops_per_image(unet, (unet.config.in_channels, size, size))  # type: ignore[union-attr, arg-type]
    return Measured(run, run_facts | {"GFLOP an image": round(flops / 1e9, 4)})


class PlainTraining:
    """The paper's training as it is listed: float32, Adam, a data loader, noise and timesteps from torch's generator.

    Its alpha-bar is computed once, not at every call as in the listing.

    Args:
        images: (N, 1, 28, 28), float32, in [-1, 1].
    """

    def __init__(self, images: Tensor, batch_size: int, widths: list[int]):
        torch.manual_seed(0)
        self.unet = PaperUNet2DModel(sample_size=28, block_out_channels=tuple(widths)).to(device()).train()
        self._optimizer = torch.optim.Adam(self.unet.parameters(), 1e-3)
        self._alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0).to(device())
        self._batches = forever(DataLoader(TensorDataset(images), batch_size, shuffle=True, drop_last=True))

    def step(self) -> int:
        """One optimizer step; returns its images."""
        x_0 = next(self._batches).to(device())
        t = torch.randint(0, 1000, (len(x_0),), device=device())
        noise = torch.randn_like(x_0)
        a = self._alpha_bar[t].view(-1, 1, 1, 1)
        x_t = a.sqrt() * x_0 + (1 - a).sqrt() * noise
        loss = F.mse_loss(self.unet(x_t, t).sample, noise)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        loss.item()  # what a listing prints
        return len(x_0)


@contextmanager
def plain_loop(*, batch_size: int, steps: int, num_threads: int = 0, widths: list[int]) -> Iterator[Measured]:
    """`PlainTraining` on digits."""
    torch.set_num_threads(num_threads or torch.get_num_threads())
    training = PlainTraining(digits(), batch_size, widths)
    yield measured(training.step, steps, batch_size, training.unet)


@contextmanager
def bare_loop(
    *,
    batch_size: int,
    steps: int,
    num_threads: int = 0,
    widths: list[int],
    precision: str,
    compile: bool = False,
    size: int = 28,
) -> Iterator[Measured]:
    """The fastest loop that a few lines give: images on the device, channels_last, autocast, fused AdamW, no averages,
    no clipping, no log."""
    torch.set_num_threads(num_threads or torch.get_num_threads())
    torch.manual_seed(0)
    unet = PaperUNet2DModel(sample_size=size, block_out_channels=tuple(widths))
    unet.to(device(), memory_format=torch.channels_last).train()
    if compile:
        unet.compile()
    optimizer = torch.optim.AdamW(unet.parameters(), 1e-3, fused=True)
    images = digits(size, min(NUM_IMAGES, 2**22 // size**2)).to(device())
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    signal, spread = alpha_bar.sqrt().float().to(device()), (1 - alpha_bar).sqrt().float().to(device())

    def step() -> None:
        x_0 = images[torch.randint(len(images), (batch_size,), device=device())]
        t = torch.randint(0, 1000, (batch_size,), device=device())
        noise = torch.randn_like(x_0)
        x_t = signal[t].view(-1, 1, 1, 1) * x_0 + spread[t].view(-1, 1, 1, 1) * noise
        with autocast(precision):
            prediction = unet(x_t.contiguous(memory_format=torch.channels_last), t).sample
        F.mse_loss(prediction.float(), noise).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    yield measured(step, steps, batch_size, unet, size)


@contextmanager
def example_loop(
    *,
    batch_size: int,
    steps: int,
    num_threads: int = 0,
    widths: list[int],
    layers: int,
    groups: int,
    size: int = 28,
    precision: str = "no",
) -> Iterator[Measured]:
    """What diffusers' example script does in a step, without its loading and transforms of files: `UNet2DModel`, stock
    scheduler, AdamW, clipping, a rate schedule, the loss read at every step; float32, as it ships, or another
    precision."""
    torch.set_num_threads(num_threads or torch.get_num_threads())
    torch.manual_seed(0)
    unet = stock_unet(widths, layers, groups, size).to(device()).train()
    optimizer = torch.optim.AdamW(unet.parameters(), 1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
    rates = get_cosine_schedule_with_warmup(optimizer, 500, 100_000)
    scheduler = DDPMScheduler()
    batches = forever(
        DataLoader(
            TensorDataset(digits(size, min(NUM_IMAGES, 2**22 // size**2))), batch_size, shuffle=True, drop_last=True
        )
    )

    def step() -> None:
        clean = next(batches).to(device())
        noise = torch.randn(clean.shape, device=device())
        timesteps = torch.randint(0, 1000, (len(clean),), device=device()).long()
        noisy = scheduler.add_noise(clean, noise, timesteps)
        with autocast(precision):
            prediction = unet(noisy, timesteps).sample
        loss = F.mse_loss(prediction.float(), noise.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
        loss.detach().item()

    yield measured(step, steps, batch_size, unet, size)


def stock_unet(widths: list[int], layers: int, groups: int, size: int = 28) -> UNet2DModel:
    """Diffusers' network for 28x28 digits, attention at the last level but one as in the example."""
    last = len(widths) - 1
    return UNet2DModel(
        sample_size=size, in_channels=1, out_channels=1, layers_per_block=layers, block_out_channels=tuple(widths),
        down_block_types=tuple("AttnDownBlock2D" if i == last - 1 else "DownBlock2D" for i in range(len(widths))),
        up_block_types=tuple("AttnUpBlock2D" if i == 1 else "UpBlock2D" for i in range(len(widths))),
        norm_num_groups=groups,
    )  # fmt: skip
