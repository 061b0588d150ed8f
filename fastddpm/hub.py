"""The saved folder: what `DiffusionPipeline.from_pretrained` finds in it, with and without this package.

    model_index.json     "DDPMPipeline" of ["fastddpm", "PaperUNet2DModel"] and ["diffusers", "DDPMScheduler"]
    unet/                config.json, safetensors, and fastddpm.py: the model's own source file
    scheduler/           scheduler_config.json, every value written out
    README.md            model card

A stock U-Net is recorded as diffusers' own class, and its folder needs no code.
"""

import json
from pathlib import Path
from typing import Any

from diffusers import DDPMScheduler

from fastddpm.models.paper_unet import PaperUNet2DModel
from fastddpm.schedulers.fused_ddpm import FusedDDPMScheduler


def finish_folder(folder: Path, unet: Any, scheduler: Any) -> None:
    """Name diffusers' own scheduler, of the same settings, and add a model card if there is none."""
    if type(scheduler) is FusedDDPMScheduler:
        index = json.loads((folder / "model_index.json").read_text())
        index["scheduler"] = ["diffusers", "DDPMScheduler"]
        DDPMScheduler.from_config(scheduler.config).save_pretrained(folder / "scheduler")
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    if not (folder / "README.md").exists():
        (folder / "README.md").write_text(model_card(unet))


def model_card(unet: Any) -> str:
    """A card that says what the folder is and which lines load it."""
    config = unet.config
    ours = isinstance(unet, PaperUNet2DModel)
    shape = f"{config.sample_size} pixels, {config.in_channels} channel(s)"
    classes = getattr(config, "num_class_embeds", None)
    labels = f" with {classes - 1} classes and a null class" if classes else ""
    notes = ""
    if ours:
        notes += "Seeds, class labels, variations: `fastddpm.FastDDPMPipeline`, `fastddpm.VariationPipeline`.\n"
    if ours and classes:
        notes += (
            "The lines above pass no label and draw from the null class, which is weaker than asking for a class.\n"
        )
    return f"""---
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags: [fastddpm, ddpm]
---
# A DDPM trained with fastddpm

`{type(unet).__name__}`, {shape}{labels}.

```python
{"import fastddpm  # registers the model class" if ours else "# plain diffusers"}
from diffusers import DiffusionPipeline
image = DiffusionPipeline.from_pretrained("PATH or user/name")(num_inference_steps=100).images[0]
```

{notes}"""
