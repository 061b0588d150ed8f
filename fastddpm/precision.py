"""The precision that networks compute in, by what is asked for and by the device, and why."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

Precision = Literal["no", "bf16", "fp16"]
NVIDIA = Path("/proc/driver/nvidia/version")  # where its driver is loaded


def resolve_precision(asked: str, cpu: bool, setting: str = "train.mixed_precision") -> Precision:
    """The precision to compute in; `auto` is the launcher's if it names one, else for training bf16 or fp16 where the
    device is faster in it, and for drawing (`setting` is "precision") fp32, whose bits are those of the pipelines.

    Raises: ValueError: the launcher contradicts, or the device does not compute in it.
    """
    plain = "no" if setting == "train.mixed_precision" else "fp32"
    launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked == "auto":
        chosen = launcher if launcher != "no" else _faster_precision(cpu) if plain == "no" else "no"
    elif launcher not in ("no", asked):
        raise ValueError(
            f"{setting} is {asked!r}, but the launcher asks for {launcher!r}; set one of them, or {setting} auto"
        )
    else:
        chosen = "no" if asked == plain else asked
    if chosen == "fp16" and cpu:
        raise ValueError(f"{setting} fp16 needs a GPU and there is none; use --{setting} auto")
    if chosen not in ("no", "bf16", "fp16"):
        raise ValueError(f"the launcher asks for mixed precision {chosen!r}; use 'no', 'bf16' or 'fp16'")
    return chosen  # type: ignore[return-value]


def _faster_precision(cpu: bool) -> Precision:
    if not cpu:  # torch's own is_bf16_supported() is true of cards that emulate it
        is_old = torch.cuda.is_available() and not torch.version.hip and torch.cuda.get_device_capability() < (8, 0)
        return "fp16" if is_old else "bf16"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if cpu_is_faster_in_bf16(capabilities) else "no"


def cpu_is_faster_in_bf16(capabilities: Mapping[str, Any]) -> bool:
    """True if bfloat16 pays on a CPU; a rule, no measurement, so that all ranks and every restart decide alike.

    Intel's AVX512-BF16 without AMX (a virtual machine may hide it) multiplies bfloat16 at 0.6 of float32's rate, and a
    training step took 1.45 times as long; AMD's multiplies it at 2.7 times float32's rate. (docs/log.md, 2026-11-25)
    """
    if capabilities.get("amx_bf16") or capabilities.get("bf16"):  # Intel's matrix unit; Arm
        return True
    is_intel = "intel" in str(capabilities.get("cpu_name", "")).lower()
    return bool(capabilities.get("avx512_bf16")) and not is_intel


def of_card_in_words(cpu: bool, asked: str = "", chosen: str = "") -> Iterator[str]:
    """Lines that say why a GPU is not used, or not in the precision of newer ones."""
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or "ACCELERATE_USE_CPU" in os.environ
    if cpu and NVIDIA.exists() and not is_hidden:
        made = f"made for CUDA {torch.version.cuda}" if torch.version.cuda else "made without CUDA"
        yield (
            f"warning: NVIDIA's driver is here, but torch {torch.__version__}, {made}, sees no GPU, so the CPU works; "
            f"compare the driver's CUDA (nvidia-smi) with torch's, and update one of them"
        )
    if chosen == "fp16" and asked == "auto" and os.environ.get("ACCELERATE_MIXED_PRECISION", "no") == "no":
        card, capability = torch.cuda.get_device_name(), ".".join(map(str, torch.cuda.get_device_capability()))
        yield f"train.mixed_precision auto: fp16, since {card} (compute capability {capability}) only emulates bf16"
