"""A pipeline from whatever a user names: a saved folder, an id on the Hub, or a run that is still going on."""

import json
from pathlib import Path
from typing import Any

from fastddpm.pipelines.dcgan import DCGANPipeline
from fastddpm.schedulers.named import scheduler_named
from fastddpm.training.run import open_unfinished


def is_dcgan(model: str) -> bool:
    """Whether a folder holds a DCGAN."""
    index = Path(model) / "model_index.json"
    return index.is_file() and json.loads(index.read_text()).get("_class_name") == "DCGANPipeline"


def open_pipeline(kind: Any, model: str, scheduler: str | None = None) -> Any:
    """A pipeline of a class, on the CPU.

    Args:
        scheduler: the solver's name; None: the one that is saved there.
    """
    folder = Path(model)
    if is_dcgan(model) and kind is not DCGANPipeline:
        raise ValueError(f"{model} is a DCGAN, which only draws new images: use fastddpm sample")
    if (folder / "checkpoints").is_dir() and not (folder / "model_index.json").exists():
        pipeline = kind(*open_unfinished(folder))
    else:
        pipeline = kind.from_pretrained(model)
    if scheduler is not None:
        pipeline.scheduler = scheduler_named(scheduler, pipeline.scheduler)
    return pipeline
