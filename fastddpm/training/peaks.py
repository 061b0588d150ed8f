"""What well-known devices compute at most, as their vendors give it; of others nothing is claimed."""

import re

import torch

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
    """Floating-point operations a second of a device, dense; None: a CPU, or a device that is not in the table.

    Args:
        precision: Accelerate's mixed_precision; with "no", convolutions take TF32 where torch allows it, its default.
    """
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
