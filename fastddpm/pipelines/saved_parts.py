"""Parts of a saved folder, whoever wrote it, before anything of the size that they tell is made: they can be built, and
the weights are safetensors of the network that they describe."""

import inspect
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import diffusers
import psutil
import torch
from diffusers import DDPMScheduler, SchedulerMixin, UNet2DModel
from pydantic import Field, TypeAdapter, ValidationError

from fastddpm.config.bounded_text import read_facts
from fastddpm.config.bounded_types import Whole
from fastddpm.config.runs import MAX_TIMESTEPS
from fastddpm.models.paper_unet import PaperUNet2DModel
from fastddpm.schedulers.fused_ddpm import FusedDDPMScheduler

ARCHITECTURES: dict[str, type[PaperUNet2DModel] | type[UNet2DModel]] = {
    "PaperUNet2DModel": PaperUNet2DModel, "UNet2DModel": UNet2DModel,
}  # fmt: skip
_Number = Annotated[int, Field(ge=1, le=2**20)]
_Few = Annotated[int, Field(ge=1, le=16)]
_Steps = Annotated[int, Field(ge=1, le=MAX_TIMESTEPS)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Part = tuple[str, str]
_INDEX: dict[str, Any] = {
    "_class_name": str | tuple[str, str], "unet": _Part, "scheduler": _Part, "null_class": Whole | None,
    "guidance_scale": _Finite, "num_inference_steps": _Steps | None, "_num_inference_steps": _Steps | None,
    "_solver": str, "_label_names": dict[str, str] | None,
}  # fmt: skip
_NETWORK: dict[str, Any] = {
    "block_out_channels": Annotated[tuple[_Number, ...], Field(min_length=1, max_length=16)], "in_channels": _Number,
    "out_channels": _Number, "layers_per_block": _Few, "sample_size": _Number | tuple[_Number, _Number] | None,
    "patch_size": _Number, "num_class_embeds": _Number | None,
}  # fmt: skip
_SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": _Steps, "solver_order": _Few, "beta_start": _Finite, "beta_end": _Finite,
}  # fmt: skip


def check_saved(folder: Path) -> None:
    """Check those parts of a pipeline that are there.

    Raises: ValueError: an index, a network or a scheduler of which nothing can be built.
    """
    index = _read(folder / "model_index.json", _INDEX)
    if missing := [part for part in ("_class_name", "unet", "scheduler") if part not in index]:
        raise _wrong(folder / "model_index.json", f"it names no {' and no '.join(missing)}")
    library, name = index["unet"]
    if library in ("diffusers", "fastddpm") and (folder / "unet" / "config.json").is_file():
        check_network(folder / "unet", str(name))
    path = folder / "scheduler" / "scheduler_config.json"
    kind = getattr(diffusers, index.get("_solver") or str(index["scheduler"][1]), None)
    if path.is_file() and isinstance(kind, type) and issubclass(kind, SchedulerMixin):
        _built(FusedDDPMScheduler if kind is DDPMScheduler else kind, _read(path, _SCHEDULER), path)  # as it is loaded


def check_network(folder: Path, name: str | None = None) -> dict[str, Any]:
    """Build the network of a folder without storage; its weights, if they are there, must be as many.

    Args:
        name: of its class; None: as its config says.
    Returns: the config.
    Raises: ValueError: it cannot be built, or not here, or it has more numbers than the weights have bytes; shards that
        are no safetensors.
    """
    path = folder / "config.json"
    options = _read(path, _NETWORK)
    name = str(options.get("_class_name")) if name is None else name
    kind = ARCHITECTURES.get(name)
    if kind is None:
        raise _wrong(path, f"it is of a {name!r:.80}; wanted {' or '.join(ARCHITECTURES)}")
    for index in folder.glob("*.safetensors.index*.json"):
        shards = read_facts(index).get("weight_map")
        if not isinstance(shards, dict) or not all(str(file).endswith(".safetensors") for file in shards.values()):
            raise _wrong(index, "it names files that are no .safetensors, and nothing else is read")
    with torch.device("meta"):
        network = _built(kind, options, path)
    count = sum(tensor.numel() for tensor in network.state_dict().values())
    size = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".safetensors", ".bin"))
    if 0 < size < count:
        raise _wrong(path, f"it describes a network of {count:,} numbers, and its weights have {size:,} bytes")
    sides, patch = network.config.sample_size or 1, network.config.get("patch_size", 1)
    area = math.prod(sides if isinstance(sides, list) else (sides, sides)) / patch**2
    wanted, free = 4 * area * max(network.config.block_out_channels), psutil.virtual_memory().available
    if wanted > free:
        raise _wrong(path, f"an image takes {wanted / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} are free")
    return options


def _read(path: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    options = read_facts(path)
    for name in kinds.keys() & options.keys():
        try:
            TypeAdapter(kinds[name]).validate_json(json.dumps(options[name]), strict=True)
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"]
            raise _wrong(path, f"{name} is {options[name]!r:.80} ({said})") from None
    return options


def _built(kind: Any, options: Mapping[str, Any], path: Path) -> Any:
    taken = inspect.signature(kind.__init__).parameters
    try:
        return kind(**{name: value for name, value in options.items() if name in taken})
    except Exception as error:  # classes of diffusers raise what their numbers lead to
        reason = (str(error).splitlines() or [""])[0]
        raise _wrong(path, f"no {kind.__name__} can be built of it: {type(error).__name__}, {reason:.200}") from None


def _wrong(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} cannot be used: {what}; copy the folder again, or use another")
