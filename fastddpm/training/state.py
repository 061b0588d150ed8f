"""State that a run needs to go on: weights, averaged weights, optimizer, and the sums of the open metrics row."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fastddpm.files import write_json
from fastddpm.pipelines.saved_parts import check_network
from fastddpm.training.build_network import UNet, from_config
from fastddpm.training.checkpoint import read_record
from fastddpm.training.ema import EMA
from fastddpm.training.guard import Guard
from fastddpm.training.metrics import LossMeter

_KEPT = ("step", "param_groups", "loss_sums", "guard", "scaler")
"""names in state.json"""


@dataclass
class TrainState:
    """The mutable part of a run. `step` counts optimizer steps done; images seen = step * batch size."""

    unet: nn.Module
    averages: tuple[EMA, ...]  # the main one first
    optimizer: torch.optim.Optimizer  # the plain one, not Accelerate's wrapper
    meter: LossMeter
    guard: Guard
    accelerator: Accelerator
    step: int = 0

    @property
    def ema(self) -> EMA:
        """The main averaged weights: those of previews and of the saved `unet/`."""
        return self.averages[0]

    def write(self, folder: Path) -> None:
        """Write the checkpoint's files: safetensors and JSON only."""
        save_module(self.unet, folder / "model.safetensors")
        for ema, path in self._files_of_averages(folder):
            save_module(ema.model, path)
        self.ema.model.to_json_file(folder / "config.json")
        groups = save_optimizer(self.optimizer, folder / "optimizer.safetensors")
        scaler = self.accelerator.scaler
        record = {
            "step": self.step,
            "param_groups": groups,
            "loss_sums": self.meter.sums.tolist(),
            "guard": self.guard.row(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }
        write_json(folder / "state.json", record)

    def read(self, folder: Path) -> None:
        """Take over a checkpoint's files, all of them.

        Raises: ValueError: a part that is missing or no part of a checkpoint; tensors that are missing, left over or
            of another shape, named.
        """
        record = read_record(folder / "state.json", _KEPT)
        read_record(folder / "config.json", ("_class_name",))
        load_module(self.unet, folder / "model.safetensors")
        for ema, path in self._files_of_averages(folder):
            load_module(ema.model, path)
        load_optimizer(self.optimizer, folder / "optimizer.safetensors", record["param_groups"])
        sums = torch.tensor(record["loss_sums"], dtype=torch.float64)
        if self.accelerator.is_main_process:  # the checkpoint holds the sums of all ranks
            self.meter.sums.copy_(sums)
        if self.accelerator.scaler is not None and record["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(record["scaler"])
        self.guard.take(record["guard"])
        self.step = record["step"]

    def _files_of_averages(self, folder: Path) -> list[tuple[EMA, Path]]:
        """The main one keeps one name whatever its decay: `load_averaged` need not know it."""
        main, *others = self.averages
        return [(main, folder / "ema.safetensors"), *((ema, folder / f"{ema.name}.safetensors") for ema in others)]


def load_averaged(folder: Path) -> UNet:
    """The main averaged weights of a checkpoint as a model of their own, in eval mode."""
    unet = from_config(check_network(folder))
    load_module(unet, folder / "ema.safetensors")
    return unet.eval()


def save_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> list[dict[str, Any]]:
    """Write its tensors.  Returns: its groups, plain JSON values."""
    state = optimizer.state_dict()
    tensors = {f"{i}.{name}": t for i, entry in state["state"].items() for name, t in entry.items()}
    save_file(_own(tensors), path)
    return state["param_groups"]


def load_optimizer(optimizer: torch.optim.Optimizer, path: Path, groups: list[dict[str, Any]]) -> None:
    """Take over what `save_optimizer` wrote.

    Raises: ValueError: tensors that are missing or of another shape, named.
    """
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in read_tensors(path).items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = tensor
    shapes = dict(enumerate(p.shape for group in optimizer.param_groups for p in group["params"]))
    names = sorted({name for entry in entries.values() for name in entry})
    missing = [f"{i}.{name}" for i in shapes for name in names if name not in entries.get(i, {})]
    others = [
        f"{i}.{name}" for i, entry in entries.items() for name, t in entry.items()
        if t.dim() and t.shape != shapes.get(i)
    ]  # fmt: skip
    _refuse(path, missing + others)
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
    state: Any = optimizer.state  # fused kernels walk a parameter and its moments side by side: in one memory format
    for parameter, entry in state.items():
        for name, tensor in entry.items():
            if tensor.shape == parameter.shape:
                entry[name] = torch.empty_like(parameter).copy_(tensor)


def save_module(module: nn.Module, path: Path) -> None:
    """Write parameters and buffers."""
    save_file(_own(module.state_dict()), path)


def load_module(module: nn.Module, path: Path) -> None:
    """Take over parameters and buffers.

    Raises: ValueError: tensors that are missing, left over or of another shape, named.
    """
    given, wanted = read_tensors(path), module.state_dict()
    wrong = sorted(
        name for name in given.keys() | wanted.keys()
        if name not in given or name not in wanted or given[name].shape != wanted[name].shape
    )  # fmt: skip
    _refuse(path, wrong)
    module.load_state_dict(given)


def _refuse(path: Path, wrong: Sequence[str]) -> None:
    if wrong:
        raise ValueError(f"{path} is of another model: {len(wrong)} tensors differ, the first: {', '.join(wrong[:5])}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; nothing else is ever read as tensors.

    Raises: ValueError: no such file, or another kind of file.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; a run does not go on without it: restore it, or remove its folder")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file ({error}), and nothing else is read: restore it, or remove its folder"
        ) from error


def _own(tensors: dict[str, Any]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU: safetensors keeps no memory format, and refuses shared storage."""
    return {name: torch.empty(t.shape, dtype=t.dtype).copy_(t.detach()) for name, t in tensors.items()}
