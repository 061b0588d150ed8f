"""Cost of a training step, found without computing it: its peak memory and its floating-point operations.

A copy of the network without storage (fake tensors: shapes, dtypes and layouts only) goes forwards and backwards once,
while every storage that an operation makes is counted until it is freed. What the libraries under torch take for
themselves (oneDNN's and cuDNN's workspaces, a CUDA context) is not in it.
"""

import copy
import re
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from fastddpm.config import RunConfig
from fastddpm.data import Splits
from fastddpm.data.batches import RESIDENT_BYTES
from fastddpm.models.attention import attention_kernels
from fastddpm.training.build_network import input_shape
from fastddpm.training.split import Split

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The expected peak of one process, in bytes, by part."""

    weights: int
    gradients: int
    optimizer: int
    averages: int
    images: int
    activations: int = 0
    """everything else that a micro-batch needs at the peak"""
    micro_batch_size: int = 0

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.weights + self.gradients + self.optimizer + self.averages + self.images + self.activations

    def __str__(self) -> str:
        unit, scale, digits = ("GiB", GIB, 2) if self.total >= GIB else ("MiB", 2**20, 1)
        names = ("weights", "gradients", "optimizer", "averages", "images")
        parts = ", ".join(f"{name} {getattr(self, name) / scale:.{digits}f}" for name in names)
        return (
            f"{self.total / scale:.{digits}f} {unit} of tensors a process (estimate: {parts}, activations "
            f"{self.activations / scale:.{digits}f} of {self.micro_batch_size} images; Python and libraries on top)"
        )


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Known facts about a run's steps before the first one."""

    memory: Memory | None
    reason: str
    """why `memory` is not known"""
    flops_per_image: float | None
    """forward and backward pass of the network, without what gradient checkpointing computes again"""
    peak_flops: float | None
    """peak of the device, a second, dense, in the run's precision, as its vendor gives it"""

    @classmethod
    def of(cls, unet: nn.Module, config: RunConfig, splits: Splits, split: Split, precision: str) -> "Cost":
        """Cost of a network on its device; never fails: what cannot be found is None."""
        try:
            memory, reason = expected_memory(unet, config, splits, split, precision), ""
        except Exception as error:  # a network that cannot be traced trains all the same
            memory, reason = None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        peak = device_peak_flops(next(unet.parameters()).device, precision)
        flops = None
        if peak is not None and memory is not None:
            flops = flops_per_image(unet, input_shape(config, splits.train.image_shape))
        return cls(memory=memory, reason=reason, flops_per_image=flops, peak_flops=peak)

    def __str__(self) -> str:
        return f"expected peak memory: {f'n/a ({self.reason})' if self.memory is None else self.memory}"

    def peak_share(self, images_per_second: float, num_devices: int) -> float | None:
        """The share of the devices' peak that the network's own operations take; None: a peak that is not known."""
        if self.flops_per_image is None or self.peak_flops is None:
            return None
        return self.flops_per_image * images_per_second / (num_devices * self.peak_flops)


def expected_memory(unet: nn.Module, config: RunConfig, splits: Splits, split: Split, precision: str) -> Memory:
    """The peak of a training step on one process, in eager mode, of a network as it will be trained: on its device, in
    its memory format, with its gradient checkpointing."""
    kept = kept_memory(unet, config, splits)
    is_tree = config.train.determinism == "elastic"
    gradients_are_kept = not is_tree and (split.world_size > 1 or split.num_micro_batches > 1)  # to the next one
    partial_sums = (split.num_micro_batches // split.world_size).bit_length() - 1 if is_tree else 0
    size = split.micro_batch_size
    fake_mode, fake = _without_storage(unet)
    live = _LiveBytes([*fake.parameters(), *fake.buffers()])
    device = next(unet.parameters()).device
    with fake_mode, live, attention_kernels(config.model.attention_backend, device, precision):
        if gradients_are_kept:
            for parameter in fake.parameters():
                parameter.grad = torch.zeros_like(parameter)
        micro_step(fake, input_shape(config, splits.train.image_shape), size, precision)
    activations = max(0, live.peak - kept.gradients)
    return replace(kept, gradients=(1 + partial_sums) * kept.gradients, activations=activations, micro_batch_size=size)


def kept_memory(unet: nn.Module, config: RunConfig, splits: Splits) -> Memory:
    """Memory that stays from step to step, without activations."""
    weights = num_bytes([*unet.parameters(), *unet.buffers()])
    gradients = num_bytes(p for p in unet.parameters() if p.requires_grad)
    sizes = [len(part) * part.source.images[0].nbytes for part in (splits.train, splits.held_out)]
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=2 * gradients,  # AdamW's two moments
        averages=weights * len(config.train.ema_decays),
        images=sum(size for size in sizes if size <= RESIDENT_BYTES),
    )


def flops_per_image(unet: nn.Module, shape: tuple[int, int, int]) -> float:
    """Floating-point operations of the forward and backward pass of one image, (C, H, W), a multiplication and an
    addition being two. Counted of matrix products, convolutions and attention; gradient checkpointing, which computes
    some of them twice, is left out."""
    fake_mode, fake = _without_storage(unet)
    if getattr(fake, "is_gradient_checkpointing", False):
        fake.disable_gradient_checkpointing()
    counter, batch = FlopCounterMode(display=False), 2  # BatchNorm refuses one value a channel
    with fake_mode, counter, sdpa_kernel(SDPBackend.MATH):  # the fused kernels of CPUs are not counted
        micro_step(fake, shape, batch, "no")
    return counter.get_total_flops() / batch


def micro_step(
    unet: Any,
    shape: tuple[int, int, int],
    micro_batch_size: int,
    precision: str,
    forward: Callable[..., Any] | None = None,
) -> Tensor:
    """Forward and backward of a micro-batch of made-up images: what the loss holds in memory, without its random
    numbers.

    Args: forward: the network's own pass, as it is compiled or not; None: not.
    Returns: the prediction, (micro_batch_size, C, H, W), float32.
    """
    device, dtype = next(unet.parameters()).device, {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    x_0 = torch.zeros(micro_batch_size, *shape, device=device)
    ramp = torch.linspace(-1, 1, x_0.numel(), device=device).view_as(x_0)
    noise, x_t = torch.zeros_like(x_0), ramp.contiguous(memory_format=torch.channels_last)
    del ramp
    timesteps = torch.zeros(micro_batch_size, dtype=torch.int64, device=device)
    labels = None if unet.config.num_class_embeds is None else torch.zeros_like(timesteps)
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        prediction = (forward or unet.forward)(x_t, timesteps, class_labels=labels).sample
    (prediction.float() - noise).square().flatten(1).mean(dim=1).mean().backward()
    return prediction.detach().float()


@contextmanager
def untouched(unet: nn.Module) -> Iterator[None]:
    """Around steps that are only tried: no gradients stay, BatchNorm's statistics and the random state are as they
    were."""
    device, buffers = next(unet.parameters()).device, [buffer.clone() for buffer in unet.buffers()]
    here, kind = ([], "cuda") if device.type == "cpu" else ([device], device.type)
    with torch.random.fork_rng(here, device_type=kind):
        try:
            yield
        finally:
            unet.zero_grad(set_to_none=True)
            for buffer, before in zip(unet.buffers(), buffers, strict=True):
                buffer.data.copy_(before)
            if device.type != "cpu":
                torch.get_device_module(device).empty_cache()


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of all elements."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _without_storage(unet: nn.Module) -> tuple[FakeTensorMode, Any]:
    fake_mode = FakeTensorMode()
    with FakeCopyMode(fake_mode):
        return fake_mode, copy.deepcopy(unet).train()


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of every storage that an operation makes, until it is freed; `peak` is the most there were."""

    def __init__(self, known: Iterable[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self._counted = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._counted:
            self._counted.add(key)
            self.now += size
            weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.now -= size


TERA = 1e12

# (a pattern in the name that torch.cuda.get_device_name gives; TFLOP/s in float16 or bfloat16, in TF32, in float32).
# From the vendors' data sheets: dense, without sparsity, with float32 sums. TF32 None: the device has none. A card
# MI250X is two devices to torch: these are the numbers of one.
_PEAKS: tuple[tuple[str, float, float | None, float], ...] = (
    (r"\bB200\b", 2250, 1125, 75),
    (r"\bH200 NVL\b", 835.5, 417.5, 60),
    (r"\bH200\b", 989.4, 494.7, 66.9),
    (r"\bH100 PCIe\b", 756, 378, 51.2),
    (r"\bH100 NVL\b", 835.5, 417.5, 60),
    (r"\bH100 80GB HBM3\b", 989.4, 494.7, 66.9),
    (r"\bA100\b", 312, 156, 19.5),
    (r"\bL40S\b", 362, 183, 91.6),
    (r"\bL4\b", 121, 60, 30.3),
    (r"\bA10\b", 125, 62.5, 31.2),
    (r"\bRTX 4090\b(?! (D|Laptop))", 165.2, 82.6, 82.6),
    (r"\bRTX 3090\b(?! Ti)", 71, 35.6, 35.6),
    (r"\bV100-SXM", 125, None, 15.7),
    (r"\bV100-PCIE\b", 112, None, 14),
    (r"\bT4\b", 65, None, 8.1),
    (r"\bMI300X\b", 1307.4, 653.7, 163.4),
    (r"\bMI250X\b", 191.5, None, 23.95),
)


def device_peak_flops(device: torch.device, precision: str) -> float | None:
    """Floating-point operations a second of a device, dense; None: a CPU, or a device that is not in the table. In
    precision "no" convolutions take TF32 where torch allows it, its default."""
    if device.type != "cuda":
        return None
    return peak_flops_of(torch.cuda.get_device_name(device), precision, allow_tf32=torch.backends.cudnn.allow_tf32)


def peak_flops_of(name: str, precision: str, *, allow_tf32: bool = True) -> float | None:
    """The same for a device's name; None also for a slice of a device (MIG)."""
    if re.search(r"\bMIG\b", name):
        return None
    for pattern, half, tf32, single in _PEAKS:
        if re.search(pattern, name):
            if precision in ("bf16", "fp16"):
                return half * TERA
            return (tf32 if allow_tf32 and tf32 is not None else single) * TERA
    return None
