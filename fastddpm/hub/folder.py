"""The saved folder: what `DiffusionPipeline.from_pretrained` finds in it, with and without this package.

    model_index.json     ["pipeline", "FastDDPMPipeline"] of ["fastddpm", "PaperUNet2DModel"] and a scheduler of
                         diffusers; guidance, steps and names of classes, which a call without arguments uses
    unet/                config.json, safetensors, and fastddpm.py: the model's own source file
    scheduler/           scheduler_config.json of the run's own solver, every value written out
    pipeline.py          generation from diffusers alone: labels, guidance, half precisions
    README.md            model card

diffusers takes `pipeline.py` for code of a stranger, and wants `trust_remote_code=True`; once this package is imported,
that name means its own class (`fastddpm.registration`), and no code of the folder is run. A stock U-Net without classes
needs none of this: it is recorded as diffusers' own, of a `DDPMPipeline` with `DDPMScheduler`, and what that does not
take (the run's own solver and its steps) is private. The U-Net and the pipeline write their own files when they are
saved, so that a folder which a stock pipeline saved loads too.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from diffusers import DDPMScheduler

from fastddpm.config.bounded_text import read_facts
from fastddpm.files import write_json
from fastddpm.hub.card import write_card
from fastddpm.schedulers.fused_ddpm import FusedDDPMScheduler


def finish_folder(folder: Path, scheduler: Any) -> None:
    """Name diffusers' own scheduler, of the same settings, and write the model card."""
    forget_origin(folder / "unet" / "config.json")
    if type(scheduler) is FusedDDPMScheduler:
        index = json.loads((folder / "model_index.json").read_text())
        index["scheduler"] = ["diffusers", "DDPMScheduler"]
        DDPMScheduler.from_config(scheduler.config).save_pretrained(folder / "scheduler")
        write_json(folder / "model_index.json", index)
    write_card(folder)


def forget_origin(config: Path) -> None:
    """Leave out of a saved network's config where diffusers once loaded it from: often a path of this machine."""
    options = read_facts(config)
    if options.pop("_name_or_path", None) is not None:
        write_json(config, dict(sorted(options.items())))


PUBLISHED = (
    "model_index.json", "README.md", "pipeline.py", "samples.png", "denoising.png",
    "unet/config.json", "unet/diffusion_pytorch_model*.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index*.json", "unet/fastddpm.py",
    "scheduler/scheduler_config.json",
)  # fmt: skip
"""files of a run's folder that are published; all else (checkpoints, logs, settings, pictures of training images)
stays"""


def stage(folder: Path, name: str | Path, target: Path) -> None:
    """Copy a folder's own file to where it is published from.

    Raises: ValueError: the name means no file, or one outside of the folder, by itself or through a link.
    """
    shown = repr(str(name))
    if Path(name).anchor or ".." in Path(name).parts:
        raise ValueError(
            f"{shown} leads out of {folder}, and only files in it are pushed; copy the file there, and name it as there"
        )
    if not (folder / name).is_file():
        raise ValueError(f"{shown} is no file of {folder}, and only files in it are pushed; put it there")
    found = (folder / name).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise ValueError(
            f"{shown} is a link out of {folder}, to {found}, and only files in it are pushed; if what its links lead "
            f"to may be published, push a copy without links, as cp -rL makes it"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(found, target)


def published_files(folder: Path) -> list[Path]:
    """The saved folder's own files, relative to it.

    Raises: ValueError: no whole pipeline of this package there.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        is_going_on = (folder / "checkpoints").is_dir()
        raise ValueError(
            f"{folder} holds no saved pipeline{' yet: its training has not ended' if is_going_on else ''}; give the "
            f"folder of a finished run, or of pipeline.save_pretrained"
        )
    if read_facts(index).get("_class_name") == "DCGANPipeline":
        raise ValueError(f"{folder} is a DCGAN, the baseline of this package, which diffusers cannot load; push a DDPM")
    found = [path.relative_to(folder) for pattern in PUBLISHED for path in sorted(folder.glob(pattern))]
    missing = [name for name in ("unet/config.json", "scheduler/scheduler_config.json") if Path(name) not in found]
    if missing or not any(path.suffix == ".safetensors" for path in found):
        raise ValueError(f"{folder} is not whole: it has no {missing[0] if missing else 'weights as safetensors'}")
    return found
