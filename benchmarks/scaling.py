"""What would a run take on 1 to 1,024 GPUs, and does the arithmetic hold here?  python -m benchmarks.scaling CONFIG

    python -m benchmarks.scaling train-unconditional --images 64             # tables: arithmetic, nothing is measured
    python -m benchmarks.scaling train-unconditional --train.batch_size 1024 --strong
    python -m benchmarks.scaling mnist-paper --data.source digits --measure  # 1, 2 and 4 processes of one thread here
    python -m benchmarks.scaling --page docs/scaling.md                      # writes the page's tables again

CONFIG's settings can be changed by --section.field VALUE, as those of `fastddpm train`. Images that are not here are
replaced by random ones of data.image_size: only their shape counts. Every number of the hardware is an assumption.
"""

import argparse
import copy
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.harness import parser, write_record
from benchmarks.scaling_check import facts, judged, measure
from benchmarks.scaling_model import Hardware, Job, Link
from benchmarks.scaling_tables import job_lines, limits_table, record_table, steps_table
from fastddpm.config import RunConfig, load_config
from fastddpm.data import load_splits
from fastddpm.training.build_network import build_unet, input_shape
from fastddpm.training.cost import expected_memory, flops_per_image, kept_memory, micro_step, num_bytes, peak_flops_of
from fastddpm.training.split import Split

WORLDS = tuple(2**power for power in range(11))
GPU = "NVIDIA H100 80GB HBM3"


def main(arguments: Sequence[str] | None = None) -> None:
    given, rest = _parser().parse_known_args(arguments)
    overrides = dict(zip((name.removeprefix("--") for name in rest[::2]), rest[1::2], strict=True))
    if given.limits:
        print(limits_table(hardware_of(given), given.averages))
    elif given.config is not None:
        job = job_of(given.config, tuple(sorted(overrides.items())))
        if given.measure:
            _write_measured(given, overrides, job)
        else:
            print(job_lines(job))
            print(steps_table(job, hardware_of(given), given.worlds, None if given.strong else given.images))
    if given.page is not None:
        given.page.write_text(refreshed(given.page.read_text(), given.page.parent))


def _parser() -> argparse.ArgumentParser:
    asked = parser(__doc__, "scaling")
    asked.set_defaults(rounds=5)
    asked.add_argument("config", nargs="?", help="a name or a file")
    asked.add_argument("--images", type=int, default=64, help="a GPU and a step, in one pass (%(default)s)")
    asked.add_argument("--strong", action="store_true", help="the config's batch, shared by more and more GPUs")
    asked.add_argument("--worlds", type=int, nargs="+", default=WORLDS, help="numbers of GPUs")
    asked.add_argument("--limits", action="store_true", help="what grows with the parameters alone")
    asked.add_argument("--averages", type=int, default=1, help="of the table of limits")
    asked.add_argument("--page", type=Path, help="a page whose tables are written again, last of all")
    asked.add_argument("--measure", action="store_true", help="1, 2 and 4 processes here; writes a record")
    asked.add_argument("--measured_images", type=int, nargs="+", default=[4, 16], help="a process and a step")
    asked.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    asked.add_argument("--steps", type=int, default=12, help="of a round")
    assumed = asked.add_argument_group("assumptions")
    peak = peak_flops_of(GPU, "bf16")
    assumed.add_argument("--peak_tflops", type=float, default=(peak or 0) / 1e12, help=f"{GPU} in bf16: %(default)s")
    assumed.add_argument("--peak_share", type=float, default=0.2, help="that a step reaches of it (%(default)s)")
    assumed.add_argument("--operation_us", type=float, default=10, help="microseconds to start one (%(default)s)")
    assumed.add_argument("--memory_gb", type=float, default=80, help="of a GPU (%(default)s)")
    assumed.add_argument("--memory_gbs", type=float, default=3350, help="GB/s of a GPU's memory (%(default)s)")
    assumed.add_argument("--gpus_a_node", type=int, default=8)
    assumed.add_argument("--within_gbs", type=float, default=300, help="GB/s between GPUs of a node (%(default)s)")
    assumed.add_argument("--between_gbs", type=float, default=40, help="GB/s of a GPU between nodes (%(default)s)")
    assumed.add_argument("--within_us", type=float, default=5, help="microseconds of a message there (%(default)s)")
    assumed.add_argument("--between_us", type=float, default=15, help="microseconds of a message there (%(default)s)")
    assumed.add_argument("--disk_gbs", type=float, default=2, help="GB/s that one process writes (%(default)s)")
    assumed.add_argument("--hash_gbs", type=float, default=1.5, help="GB/s of SHA-256 in one thread (%(default)s)")
    return asked


def hardware_of(given: argparse.Namespace) -> Hardware:
    """The assumptions of the command line."""
    return Hardware(
        flops_a_second=given.peak_tflops * 1e12 * given.peak_share,
        operation_seconds=given.operation_us / 1e6,
        memory_bytes_a_second=given.memory_gbs * 1e9,
        within=Link(bytes_a_second=given.within_gbs * 1e9, latency_seconds=given.within_us / 1e6),
        between=Link(bytes_a_second=given.between_gbs * 1e9, latency_seconds=given.between_us / 1e6),
        devices_a_node=given.gpus_a_node,
        memory_bytes=given.memory_gb * 1e9,
        disk_bytes_a_second=given.disk_gbs * 1e9,
        hash_bytes_a_second=given.hash_gbs * 1e9,
    )


@cache
def job_of(name: str | None, overrides: tuple[tuple[str, Any], ...] = ()) -> Job:
    """What a config asks for, in bf16, found by building its network; nothing is computed.

    Raises: ValueError: images that are not here, and no `data.image_size` to stand in for them.
    """
    with tempfile.TemporaryDirectory() as place:
        config = _with_images(load_config(name, {"output_dir": "runs/none", **dict(overrides)}), Path(place))
        splits = load_splits(config.data, seed=config.seed, show_progress=False)
        unet = build_unet(config, splits)
        if config.train.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        few, more = (
            expected_memory(unet, config, splits, Split(2 * size, size, 0, 2), "bf16").activations for size in (4, 8)
        )
        buffers = kept_memory(unet, config, splits).weights - num_bytes(unet.parameters())
        micro = config.train.micro_batch_size
        return Job(
            num_parameters=sum(p.numel() for p in unet.parameters()),
            num_tensors=len(list(unet.parameters())),
            buffer_bytes=buffers,
            num_averages=len(config.train.ema_decays),
            flops_per_image=flops_per_image(unet, input_shape(config, splits.train.image_shape)),
            num_operations=_num_operations(unet, input_shape(config, splits.train.image_shape)),
            fixed_activation_bytes=max(0, 2 * few - more),
            activation_bytes_per_image=(more - few) // 4,
            batch_size=config.train.batch_size,
            micro_batch_size=micro if isinstance(micro, int) else None,
            checkpoint_every=config.train.checkpoint_every,
        )


def _num_operations(unet: nn.Module, shape: tuple[int, int, int]) -> int:
    """That a pass forwards and backwards in bf16 starts, views not counted."""
    fake_mode = FakeTensorMode()
    with FakeCopyMode(fake_mode):
        fake = copy.deepcopy(unet).train()
    with fake_mode, _Operations() as seen:
        micro_step(fake, shape, 2, "bf16")
    return seen.count


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function.namespace == "aten" and not function.is_view
        return function(*args, **(kwargs or {}))


def _with_images(config: RunConfig, place: Path) -> RunConfig:
    """The same, on random images if its own are not here."""
    if config.data.source == "digits" or Path(config.data.source).exists():
        return config
    if config.data.size is None:
        raise ValueError(
            f"{config.data.source} is not here, and data.image_size does not say what shape its images have; use "
            f"--data.source digits, or --data.image_size N"
        )
    shape = (8, *config.data.size, config.data.channels or 3)
    np.save(place / "random.npy", np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    data = replace(
        config.data, source=str(place / "random.npy"), cache_dir=str(place), num_images=None, num_held_out=0,
        train_split=None, held_out_split=None,
    )  # fmt: skip
    return replace(config, data=data)


# ------------------------------------------------------------------------------------------ measuring, and the page


def _write_measured(given: argparse.Namespace, overrides: Mapping[str, Any], job: Job) -> None:
    images, steps = ([2], 2) if given.tiny else (given.measured_images, given.steps)
    cases = measure(
        given.config, overrides, job, images=images, processes=given.processes, steps=steps, rounds=given.rounds
    )
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows, bars = judged(cases, num_cores)
    settings = {"config": given.config, "overrides": dict(overrides), "rounds": given.rounds, "steps": steps}
    found = facts(cases, num_cores)
    write_record(given.out, "Scaling: predicted and measured", rows, bars, settings=settings, found=found)
    if given.page is not None:
        name = os.path.relpath(given.out.with_suffix(".json").resolve(), given.page.resolve().parent)
        given.page.write_text(re.sub(r"(?<=<!-- record: ).*(?= -->)", name, given.page.read_text()))


def refreshed(page: str, folder: Path) -> str:
    """A page whose blocks `<!-- scaling: ARGUMENTS -->` and `<!-- record: FILE -->` ... `<!-- end -->` are made anew.

    Args:
        folder: of the page, which FILE is relative to.
    """

    def filled(block: re.Match[str]) -> str:
        kind, value = block[1], block[2]
        text = _output_of(value.split()) if kind == "scaling" else record_table(folder / value)
        return f"<!-- {kind}: {value} -->\n{text.strip()}\n<!-- end -->"

    return re.sub(r"<!-- (scaling|record): (.*?) -->\n.*?<!-- end -->", filled, page, flags=re.DOTALL)


def _output_of(words: Sequence[str]) -> str:
    with redirect_stdout(StringIO()) as seen:
        main(words)
    return seen.getvalue()


if __name__ == "__main__":
    main()
