"""A pipeline from whatever a user names: a saved folder, an id on the Hub, or a run that is still going on."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusers.utils import logging

from fastddpm.config.on_hub import check_on_hub
from fastddpm.config.runs import find_run
from fastddpm.pipelines.dcgan import DCGANPipeline
from fastddpm.schedulers.named import risk_of, scheduler_named
from fastddpm.training.run import open_unfinished


def open_pipeline(kind: Any, model: str, scheduler: str | None = None) -> Any:
    """A pipeline of a class, on the CPU.

    Args:
        scheduler: the solver's name; None: the one that is saved there.
    Raises: ValueError: no model there, or a DCGAN for another class. OSError: the Hub has none of that id.
    """
    found = find_run(model)
    if found.kind == "dcgan" and kind is not DCGANPipeline:
        raise ValueError(f"{model} is a DCGAN, which only draws new images: use fastddpm sample")
    if found.kind == "hub":
        try:
            check_on_hub(model, "model")
        except OSError as error:
            raise OSError(f"{model} is no folder here, and {error}") from error
    with _in_silence():
        pipeline = kind(*open_unfinished(Path(model))) if found.kind == "unfinished" else kind.from_pretrained(model)
    if scheduler is not None:
        if (risk := risk_of(scheduler, pipeline.scheduler)) is not None:
            warnings.warn(risk, stacklevel=2)
        pipeline.scheduler = scheduler_named(scheduler, pipeline.scheduler)
    return pipeline


@contextmanager
def _in_silence() -> Iterator[None]:
    """diffusers shows a bar of parts, and tells what failed in words of its own before the error comes."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
