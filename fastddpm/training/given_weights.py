"""Weights that a run starts from: where they lie, and by which process they were trained.

    FOLDER/unet, or a name on the Hub      a pipeline, a finished run among them
    FOLDER/unet_ema                        a checkpoint of diffusers' train_unconditional: the averaged weights
    FOLDER/checkpoints                     a run of ours that has not ended: averaged weights of its newest checkpoint
    FOLDER/config.json                     a U-Net alone

**Rule of the process.** T, betas and prediction type of the weights are those of the scheduler beside them. A run takes
each of them that its own settings leave at the default, and says so; where the settings ask for another, it refuses.
"""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from accelerate import PartialState
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file

from fastddpm.config import RunConfig, SchedulerConfig, config_from_dict, load_run, newest_manifest
from fastddpm.config.on_hub import check_on_hub
from fastddpm.models.paper_unet import PaperUNet2DModel
from fastddpm.pipelines.saved_parts import ARCHITECTURES, check_network
from fastddpm.process import say
from fastddpm.training import checkpoint

UNet: TypeAlias = "PaperUNet2DModel | UNet2DModel"
PROCESS = (
    "num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type", "rescale_betas_zero_snr",
)  # fmt: skip
"""settings of a scheduler that decide what its network learns; the others decide how it draws"""


def load_source(source: str) -> UNet:
    """The U-Net in a folder or under an id; safetensors only, in half precision too.

    Raises: ValueError: there is none, of neither class, or its weights are not safetensors.
    """
    if (found := _unfinished(source)) is not None:
        options = check_network(found)
        unet = ARCHITECTURES[options["_class_name"]].from_config(options)
        unet.load_state_dict(load_file(found / "ema.safetensors"))
        return unet
    where = _locate(source)
    options = PaperUNet2DModel.load_config(source, **where)
    name = options.get("_class_name")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ValueError(f"model.init_from {source} is a {name}; wanted a {' or a '.join(ARCHITECTURES)}")
    check_network(_folder_of(source, **where), name)
    files = [file.name for file in (Path(source) / where.get("subfolder", "")).glob("*.safetensors")]
    is_half = files != [] and all(".fp16." in file for file in files)
    if is_half:
        say(PartialState(), f"model.init_from {source} has its weights in half precision only (*.fp16.safetensors)")
    try:
        variant = "fp16" if is_half else None
        return ARCHITECTURES[name].from_pretrained(source, use_safetensors=True, variant=variant, **where).float()
    except OSError as error:
        raise ValueError(
            f"model.init_from {source} has no weights as safetensors ({str(error).splitlines()[0]}); save it again "
            "with save_pretrained, which writes them"
        ) from error


def _folder_of(source: str, subfolder: str | None = None) -> Path:
    """The folder of the network's config and index; of a name on the Hub, what is kept of it here."""
    if Path(source).is_dir():
        return Path(source, subfolder or "")
    with suppress(EntryNotFoundError):  # not in shards
        hf_hub_download(source, "diffusion_pytorch_model.safetensors.index.json", subfolder=subfolder)
    return Path(hf_hub_download(source, "config.json", subfolder=subfolder)).parent


def _unfinished(source: str) -> Path | None:
    """The newest checkpoint of a run of ours that has not saved a pipeline yet."""
    folder = Path(source)
    if (folder / "unet").is_dir() or not (folder / "checkpoints").is_dir() or not (folder / "config.yaml").is_file():
        return None
    found = checkpoint.newest(folder / "checkpoints")
    return None if found is None else found[0]


def _locate(source: str) -> dict[str, str]:
    """Place of the U-Net in a folder or repository, as arguments of diffusers' loaders."""
    folder = Path(source)
    if folder.is_dir():
        for name in ("unet_ema", "unet"):
            if (folder / name / "config.json").is_file():
                if name == "unet_ema":
                    say(PartialState(), f"model.init_from {source}: took unet_ema, the averaged weights, and not unet")
                return {"subfolder": name}
        if (folder / "config.json").is_file():
            return {}
        raise ValueError(
            f"model.init_from {source} holds neither unet/config.json nor config.json; wanted the folder of a DDPM "
            "pipeline or of a U-Net, as save_pretrained writes them (a finished run is one)"
        )
    try:
        check_on_hub(source, "model")
    except OSError as error:
        raise ValueError(f"model.init_from {source} is no folder here, and {error}") from error
    for where in ({"subfolder": "unet"}, {}):
        try:
            PaperUNet2DModel.load_config(source, **where)
        except (OSError, ValueError):
            continue
        return where
    raise ValueError(f"model.init_from {source} is no folder here, and holds no U-Net on the Hub, as far as it is kept")


def label_names_of(source: str) -> list[str] | None:
    """Names of the classes of a source's weights; None: not told."""
    folder = Path(source)
    try:
        if not folder.is_dir():
            names = DDPMPipeline.load_config(source).get("_label_names")
        elif (folder / "model_index.json").is_file():
            names = json.loads((folder / "model_index.json").read_text()).get("_label_names")
        else:
            names = json.loads((folder / "data.json").read_text()).get("label_names")
    except (OSError, ValueError):  # a U-Net alone
        return None
    return list(names.values()) if isinstance(names, dict) else names


def follow_process(config: RunConfig) -> RunConfig:
    """Settings of a run with the process of the weights that it starts from, by the rule above; of a run that goes on,
    as its checkpoint has them.

    Raises: ValueError: the weights were trained by a process that the settings contradict, or that cannot be set.
    """
    source, manifest = config.model.init_from, newest_manifest(Path(config.output_dir))
    kept = None if manifest is None else manifest.get("config", asdict(config))["scheduler"]
    theirs = kept or (None if source is None else _process_of(source))
    if source is None or theirs is None:
        return config
    own, defaults = asdict(config.scheduler), asdict(SchedulerConfig())
    wanted = {name: theirs.get(name, defaults[name]) for name in PROCESS}
    if wanted["beta_schedule"] == "squaredcos_cap_v2":  # which has no ends
        wanted |= {name: own[name] for name in ("beta_start", "beta_end")}
    others = {name: value for name, value in wanted.items() if own[name] != value}
    asked = [
        f"{name} {value!r} (asked for: {own[name]!r})" for name, value in others.items() if own[name] != defaults[name]
    ]
    if asked and kept is None:
        raise ValueError(
            f"model.init_from {source} was trained with scheduler.{', scheduler.'.join(asked)}; leave these settings "
            f"out, or take weights of the process that you ask for"
        )
    taken = {name: value for name, value in others.items() if own[name] == defaults[name]}
    if taken and kept is None:
        said = ", ".join(f"scheduler.{name} {value}" for name, value in taken.items())
        say(PartialState(), f"model.init_from {source}: {said} taken from the scheduler beside the weights")
    return config_from_dict({**asdict(config), "scheduler": {**own, **taken}})


def _process_of(source: str) -> dict[str, Any] | None:
    """Settings of the scheduler beside the weights; None: there is none, which is said."""
    folder, found = Path(source), None
    if _unfinished(source) is not None:
        return asdict(load_run(folder).scheduler)
    if folder.is_dir():
        above = folder.resolve()
        while above.name in ("unet", "unet_ema") or above.name.startswith(("checkpoint-", "ema-")):
            above = above.parent
        files = [place / "scheduler" / "scheduler_config.json" for place in (folder, above)]
        found = next((json.loads(file.read_text()) for file in files if file.is_file()), None)
    else:
        with suppress(OSError, ValueError):
            found = DDPMScheduler.load_config(source, subfolder="scheduler")
    if found is None:
        say(PartialState(), f"model.init_from {source} has no scheduler beside it: the settings are taken for its own")
        return None
    name, learnt = str(found.get("_class_name")), found.get("prediction_type", "epsilon")
    if "Flow" in name or "EDM" in name or found.get("trained_betas") is not None or found.get("use_flow_sigmas"):
        raise ValueError(
            f"model.init_from {source} was trained by a process that cannot be set here ({name}, prediction_type "
            f"{learnt}); take weights of a DDPM"
        )
    return dict(found)
