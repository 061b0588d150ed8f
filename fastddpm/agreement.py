"""One job, one truth: what decides its numbers is compared on all ranks, before anything is read and once it is.

Each rank has its own settings, packages and pictures, from its own machine. Where they differ every rank would train to
the end, and the result would be nobody's.
"""

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import gather_object

from fastddpm.config.checks import value_of
from fastddpm.config.describe import field_names
from fastddpm.files import locked
from fastddpm.process import borrowed_process, device_model, join_processes, say, some

PACKAGES = ("torch", "diffusers", "accelerate", "numpy")
ENVIRONMENT = (
    "ACCELERATE_MIXED_PRECISION", "CUBLAS_WORKSPACE_CONFIG", "DNNL_DEFAULT_FPMATH_MODE", "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE", "TORCHDYNAMO_DISABLE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_COMPILE_DISABLE",
    "TRITON_DEFAULT_FP_FUSION", "TRITON_INTERPRET",
)  # fmt: skip
"""variables that choose other arithmetic"""
INSTRUCTIONS = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")
"""variables that choose among a CPU's instructions, which machines of several kinds may want"""
PLACES = (
    "output_dir", "data.source", "data.cache_dir", "model.init_from", "watch.features", "model", "images", "partners",
    "data", "samples", "reals", "training", "source", "normal", "known", "features",
)  # fmt: skip
"""settings that may be another path on each machine; what lies there is compared itself"""


@contextmanager
def working(request: Any) -> Iterator[PartialState]:
    """Join the other processes, for what a verb is asked for, as the only job that writes at its `out`; every rank
    calls it.

    Raises: ValueError: another job writes there; ranks that differ; other numbers of processes, see `join_processes`.
    """
    with borrowed_process():
        state = join_processes(
            request.num_threads, getattr(request, "num_processes", 1), takes_compile=hasattr(request, "compile")
        )
        check_alike(state, request)
        with locked(request.out, state):
            yield state


def check_alike(state: Accelerator | PartialState, asked: Any, *, promises_bits: bool = False) -> None:
    """Compare what all ranks are asked for, and what they compute with; every rank calls it. What only rounds
    differently (threads, the kind of device) is told in a line.

    Args:
        asked: a request or config.
        promises_bits: refuse what rounds differently too.
    Raises: ValueError: on all ranks; the first difference, with each rank's value.
    """
    if state.num_processes == 1:
        return
    device, precision = state.device, getattr(state, "mixed_precision", None)
    rounding = {
        "the number of threads": torch.get_num_threads() if device.type == "cpu" else None,
        "the device": device_model(device),
        **{name: os.environ.get(name) for name in INSTRUCTIONS},
    }
    facts = {
        "install the same on all machines": {
            **{f"the version of {name}": metadata.version(name) for name in PACKAGES},
            "the version of Python": platform.python_version(),
            "the code of fastddpm (its checksum)": _checksum_of_code(),
        },
        "set it alike on all machines": {
            "the kind of device": device.type,
            "the precision": precision,
            **{name: os.environ.get(name) for name in ENVIRONMENT},
        },
        "start all processes with the same settings": _settings(asked),
        "train.determinism elastic promises equal bits: start all with the same": rounding if promises_bits else {},
        "results round as each rank has it": {} if promises_bits else rounding,
    }
    *refused, told = _differences(facts)
    if (first := next((line for line in refused if line), None)) is not None:
        raise ValueError(first)
    if told is not None:
        say(state, told)


def check_same(state: Accelerator | PartialState, what: str, value: str, advice: str) -> None:
    """Compare what the ranks have read; every rank calls it.  Raises: ValueError: on all ranks; each one's value."""
    if state.num_processes > 1 and (line := _differences({advice: {what: value}})[0]) is not None:
        raise ValueError(line)


def _differences(facts: Mapping[str, Mapping[str, Any]]) -> list[str | None]:
    """The first difference between the ranks in each group of facts, in a line; None: there is none.

    Args:
        facts: of this rank; what to do about a difference -> name -> value.
    """
    of_ranks, lines = gather_object([{advice: dict(found) for advice, found in facts.items()}]), list[str | None]()
    for advice in facts:
        names = dict.fromkeys(name for found in of_ranks for name in found.get(advice, {}))
        named = ((name, [found.get(advice, {}).get(name) for found in of_ranks]) for name in names)
        differing = next(((name, values) for name, values in named if any(one != values[0] for one in values)), None)
        lines.append(None if differing is None else f"{_told(*differing)}; {advice}")
    return lines


def _told(name: str, values: list[Any]) -> str:
    ranks: dict[str, list[str]] = {}
    for rank, value in enumerate(values):
        ranks.setdefault("not set" if value is None else str(value), []).append(str(rank))
    on = [f"{value} on rank{'s' * (len(having) > 1)} {some(having)}" for value, having in ranks.items()]
    return f"{name} differs: {' and '.join(on)}"


def _settings(asked: Any) -> dict[str, Any]:
    found = {name: value_of(asked, name) for name in field_names(type(asked)) if name not in PLACES}
    compared = {
        name: value
        for name, value in found.items()
        if not isinstance(value, Path) and name.rpartition(".")[2] != "num_threads"
    }
    return json.loads(json.dumps(compared, default=str))


def _checksum_of_code() -> str:
    root, found = Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return found.hexdigest()[:12]
