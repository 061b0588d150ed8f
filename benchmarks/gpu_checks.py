"""Is it right on this device?  python -m benchmarks.gpu_checks

Every operator against its reference on the CPU, in parts of the largest number; and 200 training steps in one go
against the same stopped after 100 and gone on with, bit by bit.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Bar, parser, whole_row, write_record
from benchmarks.ours import PacedRun
from benchmarks.peers.loops import device
from fastddpm.config import load_config
from fastddpm.kernels import add_noise, denoise_step, denoising_mse, philox

FP32 = torch.float32
BFLOAT16, FLOAT32 = 2.0**-7, 2.0**-18
"""most that a result may be apart, in parts of the largest number: a rounding of bfloat16; some of float32, whose
normals are of another backend"""


def main() -> None:
    asked = parser(__doc__, "gpu-checks")
    given = asked.parse_args()
    apart = dict(kernels_apart([2, 3, 8, 8] if given.tiny else [64, 3, 64, 64]))
    steps = 4 if given.tiny else 200
    with tempfile.TemporaryDirectory() as folder:
        differing = tensors_that_differ(Path(folder), steps)
    bars = [Bar(name, found, most, at_most=True) for name, (found, most) in apart.items()]
    bars.append(Bar(f"tensors that differ after {steps} steps, stopped and not", differing, 0, at_most=True))
    rows = [whole_row(name, [found], "largest difference") for name, (found, _) in apart.items()]
    write_record(given.out, f"Right on {device().type}", rows, bars, settings=vars(given) | {"out": None})
    if not all(bar.is_reached for bar in bars):
        raise SystemExit("not right on this device: see the lines that say FAIL")


def kernels_apart(shape: list[int]) -> Iterator[tuple[str, tuple[float, float]]]:
    """Names of operators and dtypes; how far the device is from the reference on the CPU, and how far it may be."""
    positions = torch.arange(shape[0]) + 2**33
    of = {"seed": 7, "stream": 3, "draw": 5}
    words = philox.philox_words(positions.to(device()), 1000, **of).cpu()
    yield "philox words", (float((words != philox.philox_words_reference(positions, 1000, **of)).sum()), 0.0)
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    noise, output = torch.randn(2, *shape, generator=generator).unbind()
    t, jump, step = torch.randint(0, 1000, shape[:1], generator=generator), torch.rand(2, 1000), torch.rand(1000, 5)
    for dtype, most in ((torch.float32, FLOAT32), (torch.bfloat16, BFLOAT16)):
        cases: dict[str, tuple[Any, Any, tuple[Any, ...]]] = {
            "add_noise, keyed": (add_noise.add_noise, add_noise.add_noise_reference,
                                 (x_0, t, jump, None, positions, 7, 0, 0, dtype, True)),
            "denoise_step, keyed": (denoise_step.denoise_step, denoise_step.denoise_step_reference,
                                    (output.to(dtype), noise, t, step, None, positions, 7, 7, 1.0, FP32, dtype, None)),
            "denoising_mse": (denoising_mse.denoising_mse, denoising_mse.denoising_mse_reference,
                              (output.to(dtype), x_0, noise, t, jump, "v_prediction")),
        }  # fmt: skip
        for name, (operator, reference, arguments) in cases.items():
            there = operator(*(x.to(device()) if isinstance(x, Tensor) else x for x in arguments))
            pairs = zip(_tensors(there), _tensors(reference(*arguments)), strict=True)
            yield (
                f"{name}, {str(dtype).removeprefix('torch.')}",
                (max(_apart(a, b) for a, b in pairs if b.numel()), most),
            )


def _tensors(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else found


def _apart(there: Tensor, here: Tensor) -> float:
    return float((there.cpu().double() - here.double()).abs().max() / here.double().abs().max())


def tensors_that_differ(folder: Path, steps: int) -> int:
    """Weights and averaged weights that are not bit-equal after so many steps in one go, and stopped in the middle."""
    found: list[dict[str, Tensor]] = []
    for name, parts in (("whole", [steps]), ("stopped", [steps // 2, steps - steps // 2])):
        for part in parts:
            overrides = {
                "data.source": "digits", "data.num_images": 1000, "data.num_held_out": 64, "output_dir": folder / name,
                "train.batch_size": 16, "train.determinism": "exact", "train.num_threads": 1,
                "train.num_images_seen": 10**6,
                "watch.preview_every_images": 0, "train.evaluate_every": 0, "model.block_out_channels": "[16, 32]",
            }  # fmt: skip
            paced = PacedRun(load_config("quickstart", {key: str(value) for key, value in overrides.items()}))
            paced.steps(part)
            paced.run.save()
            state = {**paced.run.state.unet.state_dict(), **paced.run.state.ema.model.state_dict(prefix="ema.")}
            tensors = {key: tensor.cpu().clone() for key, tensor in state.items()}
            paced.stop()
        found.append(tensors)
    return sum(not torch.equal(found[0][key], found[1][key]) for key in found[0])


if __name__ == "__main__":
    main()
