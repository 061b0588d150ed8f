"""What the compiler makes of our Triton kernels, without a GPU: registers, spills, shared memory, width of accesses.

    python -m benchmarks.kernels_aot            # the table of a kernels record in benchmarks/results
    python -m benchmarks.kernels_aot --targets sm_90

Each variant is a call of a kernel's own launcher on tensors without storage. The launch is caught, its arguments are
specialized as the JIT would (pointers and numbers divisible by 16, ones, None), and the kernel is compiled ahead of
time. Registers and the stack are read from the binary, accesses from the machine code (SASS, AMD's assembly).
TRITON_INTERPRET must not be set.
"""

import argparse
import collections
import functools
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastddpm.kernels import add_noise, denoise_step, denoising_mse, philox
from fastddpm.kernels.triton_or_not import LAUNCH

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHAPE = (4, 3, 64, 64)
_TYPES = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.uint8: "*u8", torch.int64: "*i64",
}  # fmt: skip
BF16, FP32, UINT8 = torch.bfloat16, torch.float32, torch.uint8


@dataclass(frozen=True)
class Launch:
    """A caught launch: what Triton's JIT would get."""

    kernel: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def elements(self) -> list[tuple[str, Tensor]]:
        """The tensors of images that the kernel reads or writes, by name."""
        named = zip(self.kernel.arg_names, self.arguments, strict=False)
        others = {"table_ptr"} | ({"x_0_ptr"} if self.options.get("PREDICTION_TYPE") == "epsilon" else set())
        return [(n, a) for n, a in named if isinstance(a, Tensor) and a.numel() >= SHAPE[0] * 49 and n not in others]


@dataclass(frozen=True)
class Compiled:
    """A kernel for one target.

    loads, stores: how often an access of so many bits a thread stands in the machine code.
    """

    registers: int
    spilled_bytes: int
    stack_bytes: int
    shared_bytes: int
    loads: dict[int, int]
    stores: dict[int, int]
    arithmetic: dict[str, int]


def caught(call: Callable[[], None]) -> Launch:
    """The one launch that a call makes."""
    launches: list[Launch] = []

    class Catcher:
        def __init__(self, kernel: Any):
            self.kernel = kernel

        def __getitem__(self, grid: Any) -> Callable:
            return lambda *arguments, **options: launches.append(Launch(self.kernel, arguments, options))

    with mock.patch.object(torch.library, "wrap_triton", Catcher):
        call()
    (launch,) = launches
    return launch


def compiled(launch: Launch, target: GPUTarget, *, fp_fusion: bool = False) -> Compiled:
    """Compile a launch ahead of time and read the result."""
    signature, constants, attributes = _specialized(launch, target)
    source = ASTSource(launch.kernel, signature, constants, attributes)
    num_warps = 256 // target.warp_size
    made = triton.compile(source, target=target, options={"num_warps": num_warps, "enable_fp_fusion": fp_fusion})
    if target.backend == "hip":
        return _read_amd(made.asm["amdgcn"], made.metadata.shared)
    return _read_nvidia(made.asm["cubin"], made.metadata.shared)


def _specialized(launch: Launch, target: GPUTarget) -> tuple[dict, dict, dict]:
    given = dict(zip(launch.kernel.arg_names, launch.arguments, strict=False)) | launch.options
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(launch.kernel.params):
        value, name = given[parameter.name], parameter.name
        specialize = not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (specialize and type(value) is int and value == 1):
            signature[name], constants[name] = "constexpr", value
            continue
        hints = []
        if isinstance(value, Tensor):
            signature[name] = _TYPES[value.dtype]
            hints = [["tt.divisibility", 16]] + ([["tt.pointer_range", 32]] if target.backend == "hip" else [])
        elif isinstance(value, int):
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            hints = [["tt.divisibility", 16]] if specialize and value % 16 == 0 else []
        else:
            signature[name] = "fp32"
        if hints:
            attributes[(index,)] = hints
    return signature, constants, attributes


@functools.cache
def _tool(name: str) -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _read_nvidia(binary: bytes, shared: int) -> Compiled:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        run = functools.partial(subprocess.run, capture_output=True, text=True, check=True)
        usage = run([_tool("cuobjdump"), "-res-usage", file.name])
        code = run([_tool("nvdisasm"), "-c", file.name]).stdout
    usage_text = usage.stdout + usage.stderr
    registers, stack = (int(re.search(rf"{name}:(\d+)", usage_text)[1]) for name in ("REG", "STACK"))  # type: ignore
    widths = {kind: _widths(re.findall(rf"\b{kind}\.E((?:\.\w+)*)", code)) for kind in ("LDG", "STG")}
    spilled = 4 * len(re.findall(r"\b(?:LDL|STL)\b", code))
    arithmetic = collections.Counter(re.findall(r"\b(FFMA|FMUL|FADD)\b", code))
    return Compiled(registers, spilled, stack, shared, widths["LDG"], widths["STG"], dict(arithmetic))


def _widths(suffixes: list[str]) -> dict[int, int]:
    found: collections.Counter[int] = collections.Counter()
    for suffix in suffixes:
        parts = set(suffix.split("."))
        bits = [width for width in (256, 128, 64) if str(width) in parts]
        narrow = 8 if parts & {"U8", "S8"} else 16 if parts & {"U16", "S16"} else 32
        found[bits[0] if bits else narrow] += 1
    return dict(found)


def _read_amd(text: str, shared: int) -> Compiled:
    bits = {"dwordx4": 128, "dwordx3": 96, "dwordx2": 64, "dword": 32, "ushort": 16, "short": 16, "ubyte": 8, "byte": 8}
    widths = {
        kind: collections.Counter(
            bits[width.removesuffix("_d16_hi").removesuffix("_d16")]
            for width in re.findall(rf"\b(?:global|buffer)_{kind}_(\w+)", text)
        )
        for kind in ("load", "store")
    }
    registers = int(re.search(r"\.vgpr_count:\s+(\d+)", text)[1])  # type: ignore[index]
    spills = [int(n) for n in re.findall(r"\.[sv]gpr_spill_count:\s+(\d+)", text)]
    stack = int(re.search(r"\.private_segment_fixed_size:\s+(\d+)", text)[1])  # type: ignore[index]
    return Compiled(registers, 4 * sum(spills), stack, shared, dict(widths["load"]), dict(widths["store"]), {})


# -- variants -------------------------------------------------------------------------------------------------------


def _empty(dtype: torch.dtype, layout: torch.memory_format = torch.contiguous_format, shape: Any = SHAPE) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=layout)


def _integers() -> Tensor:
    return torch.empty(SHAPE[0], dtype=torch.int64, device="meta")


def fill(dtype: torch.dtype) -> Launch:
    """Words (int64) or normals (float32) of one stream."""
    out = torch.empty(SHAPE[0], 12288, dtype=dtype, device="meta")
    return caught(lambda: philox.launch_fill(out, _integers(), _integers(), 0, 3))


def jump(x_0: torch.dtype, x_t: torch.dtype, *, keyed: bool, channels_last: bool = False) -> Launch:
    """`add_noise` of contiguous images."""
    table = torch.empty(2, 1000, device="meta")
    noise, positions = (None, _integers()) if keyed else (_empty(FP32), None)
    return caught(
        lambda: add_noise.launch_add_noise(
            _empty(x_0), _integers(), table, noise, positions, 0, 0, 0, x_t, channels_last
        )
    )


def step(
    output: torch.dtype,
    *,
    keyed: bool,
    model_dtype: torch.dtype | None = None,
    x_0: torch.dtype | None = None,
    clip_range: float | None = None,
    channels_last: bool = False,
    shape: Any = SHAPE,
) -> Launch:
    """`denoise_step` of float32 samples."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    noise, positions = (None, _integers()) if keyed else (_empty(FP32, layout, shape), None)
    tensors = _empty(output, layout, shape), _empty(FP32, layout, shape)
    table = torch.empty(1000, 5, device="meta")
    return caught(
        lambda: denoise_step.launch_denoise_step(
            *tensors, _integers(), table, noise, positions, 0, 7, clip_range, FP32, model_dtype, x_0
        )
    )


def loss(prediction: torch.dtype, prediction_type: str, *, backward: bool, channels_last: bool = False) -> Launch:
    """`denoising_mse` of contiguous uint8 images and float32 noise."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    table = torch.empty(2, 1000, device="meta")
    given = _empty(prediction, layout), _empty(UINT8), _empty(FP32, layout), _integers(), table, prediction_type
    if backward:
        grad = torch.empty(SHAPE[0], device="meta")
        return caught(lambda: denoising_mse.launch_denoising_mse_backward(grad, *given))
    return caught(lambda: denoising_mse.launch_denoising_mse(*given))


VARIANTS: dict[str, Callable[[], Launch]] = {
    "philox words": lambda: fill(torch.int64),
    "philox normals": lambda: fill(FP32),
    "add_noise: uint8, keyed -> fp32": lambda: jump(UINT8, FP32, keyed=True),
    "add_noise: uint8, keyed -> bf16": lambda: jump(UINT8, BF16, keyed=True),
    "add_noise: uint8, keyed -> fp32 channels_last": lambda: jump(UINT8, FP32, keyed=True, channels_last=True),
    "add_noise: fp32, given -> fp32": lambda: jump(FP32, FP32, keyed=False),
    "denoise_step: fp32, given -> x_prev, x_0": lambda: step(FP32, keyed=False, x_0=FP32),
    "denoise_step: the same, clipped": lambda: step(FP32, keyed=False, x_0=FP32, clip_range=1.0),
    "denoise_step: fp32, keyed -> x_prev": lambda: step(FP32, keyed=True),
    "denoise_step: bf16, keyed -> x_prev, bf16 input": lambda: step(BF16, keyed=True, model_dtype=BF16),
    "denoise_step: the same, channels_last": lambda: step(BF16, keyed=True, model_dtype=BF16, channels_last=True),
    "denoising_mse: fp32, epsilon": lambda: loss(FP32, "epsilon", backward=False),
    "denoising_mse: bf16, v_prediction": lambda: loss(BF16, "v_prediction", backward=False),
    "denoising_mse backward: fp32, epsilon": lambda: loss(FP32, "epsilon", backward=True),
    "denoising_mse backward: bf16, v_prediction": lambda: loss(BF16, "v_prediction", backward=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    targets = parser.parse_args().targets
    print(f"triton {triton.__version__}, {LAUNCH['BLOCK']} elements and 256 threads a program\n")
    print("| kernel | target | registers | spilled | shared | loads, bits x times | stores |")
    print("|---|---|---|---|---|---|---|")
    for name, make in VARIANTS.items():
        launch = make()
        for target in targets:
            made = compiled(launch, TARGETS[target])
            loads, stores = (
                ", ".join(f"{bits} x {times}" for bits, times in sorted(kind.items(), reverse=True))
                for kind in (made.loads, made.stores)
            )
            spilled = made.spilled_bytes + made.stack_bytes
            print(f"| {name} | {target} | {made.registers} | {spilled} | {made.shared_bytes} | {loads} | {stores} |")


if __name__ == "__main__":
    main()
