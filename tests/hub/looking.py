"""For processes that load a pipeline: what it is and draws, as JSON. Imports torch and diffusers only.

from tests.hub.looking import *
look("paper", load("ann/paper", trust_remote_code=True))
tell()
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDPMPipeline, DiffusionPipeline

__all__ = ["DiffusionPipeline", "digest", "found", "load", "look", "refused", "tell", "torch"]

found: dict[str, Any] = {}


def load(source: str, kind: Any = DiffusionPipeline, **how: Any) -> Any:
    pipe = kind.from_pretrained(source, **how)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def look(name: str, pipe: Any, **arguments: Any) -> None:
    """Remember the classes, the weights and two images of one generator."""
    generator = torch.Generator().manual_seed(3)
    if isinstance(pipe, DDPMPipeline):  # which would take 1,000 steps
        arguments["num_inference_steps"] = 4
    images = pipe(generator=generator, batch_size=2, output_type="np", **arguments).images
    kinds = {"pipeline": pipe, "unet": pipe.unet, "scheduler": pipe.scheduler}
    found[name] = {
        **{part: type(value).__name__ for part, value in kinds.items()},
        "images": images.tolist(), "weights": digest(pipe.unet),
    }  # fmt: skip


def digest(unet: torch.nn.Module) -> str:
    """Of all bits of all weights, by name."""
    named = sorted(unet.state_dict().items())
    return hashlib.sha256(b"".join(name.encode() + tensor.numpy().tobytes() for name, tensor in named)).hexdigest()


def refused(name: str, do: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Remember the error of what must not work."""
    try:
        do(*arguments, **options)
        found[name] = "it worked"
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"


def tell() -> None:
    """As the last line of the process."""
    print(json.dumps(found))
