"""The saved folder: what `DiffusionPipeline.from_pretrained` finds in it, with and without this package.

    model_index.json     "DDPMPipeline" of ["fastddpm", "PaperUNet2DModel"] and ["diffusers", "DDPMScheduler"]
    unet/                config.json, safetensors, and fastddpm.py: the model's own source file
    scheduler/           scheduler_config.json, every value written out
    pipeline.py          generation from diffusers alone: labels, guidance, half precisions
    README.md            model card

A stock U-Net is recorded as diffusers' own class, and its folder needs no code, unless it has classes: `DDPMPipeline`
passes no labels, so model_index.json names `pipeline.py`. The U-Net and the pipeline write their own files when they
are saved, so that a folder which a stock pipeline saved loads too.
"""

import json
from pathlib import Path
from typing import Any

from diffusers import DDPMScheduler

from fastddpm.models.paper_unet import PaperUNet2DModel
from fastddpm.schedulers.fused_ddpm import FusedDDPMScheduler


def finish_folder(folder: Path, unet: Any, scheduler: Any, num_classes: int | None) -> None:
    """Name diffusers' own scheduler, of the same settings, and add a model card if there is none."""
    if type(scheduler) is FusedDDPMScheduler:
        index = json.loads((folder / "model_index.json").read_text())
        index["scheduler"] = ["diffusers", "DDPMScheduler"]
        DDPMScheduler.from_config(scheduler.config).save_pretrained(folder / "scheduler")
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    if not (folder / "README.md").exists():
        (folder / "README.md").write_text(model_card(unet, num_classes))


def model_card(unet: Any, num_classes: int | None) -> str:
    """A card that says what the folder is and which lines load it."""
    unet = getattr(unet, "_orig_mod", unet)  # as torch.compile wraps it
    config = unet.config
    classes = f" with {num_classes} classes" if num_classes else ""
    return f"""---
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags: [fastddpm, ddpm]
---
# A DDPM trained with fastddpm

`{type(unet).__name__}`, {config.sample_size} pixels, {config.in_channels} channel(s){classes}.

{_how_to_load(isinstance(unet, PaperUNet2DModel), num_classes)}
With the package `fastddpm`, for every model it saved, also seeds and variations:

```python
from fastddpm import FastDDPMPipeline
image = FastDDPMPipeline.from_pretrained("PATH or user/name")(seeds=[0], num_inference_steps=100).images[0]
```
"""


_PLAIN = """```python
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained("PATH or user/name")
image = pipeline(num_inference_steps=100).images[0]
```
"""
_OWN = """```python
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained(
    "PATH or user/name", custom_pipeline="pipeline", trust_remote_code=True
)
image = pipeline(num_inference_steps=100).images[0]
```
"""


def _how_to_load(brings_code: bool, num_classes: int | None) -> str:
    own = _OWN.replace("(num_", "(class_labels=[0], num_") if num_classes else _OWN
    if not brings_code and num_classes is None:
        return f"Plain diffusers:\n\n{_PLAIN}"
    if not brings_code:
        return f"`DDPMPipeline` passes no labels, so trust the folder's own `pipeline.py`:\n\n{own}"
    weaker = "\nIt passes no label, which draws from the null class and is weaker than asking for a class.\n"
    return (
        "With fastddpm installed, after `import fastddpm`; without it, add `trust_remote_code=True`, which runs the "
        f"folder's `unet/fastddpm.py`:\n\n{_PLAIN}{weaker if num_classes else ''}\n"
        f"Without fastddpm, labels, guidance and half precisions, by the folder's two files:\n\n{own}"
    )
