"""fastddpm: train denoising diffusion models on your own images, and use them through diffusers.

Public names are loaded when first used, so that `import fastddpm` costs milliseconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastddpm.registration import register

if TYPE_CHECKING:
    from fastddpm.config import load_config
    from fastddpm.models.paper_unet import PaperUNet2DModel
    from fastddpm.pipelines.anomaly import AnomalyPipeline
    from fastddpm.pipelines.cutmix import CutMixPipeline
    from fastddpm.pipelines.generate import FastDDPMPipeline
    from fastddpm.pipelines.vary import VariationPipeline
    from fastddpm.schedulers.fused_ddpm import FusedDDPMScheduler
    from fastddpm.training import train

__version__ = "0.2.0"

_WHERE = {
    "PaperUNet2DModel": "fastddpm.models.paper_unet",
    "FusedDDPMScheduler": "fastddpm.schedulers.fused_ddpm",
    "FastDDPMPipeline": "fastddpm.pipelines.generate",
    "AnomalyPipeline": "fastddpm.pipelines.anomaly",
    "CutMixPipeline": "fastddpm.pipelines.cutmix",
    "VariationPipeline": "fastddpm.pipelines.vary",
    "load_config": "fastddpm.config",
    "train": "fastddpm.training",
}

__all__ = [
    "AnomalyPipeline",
    "CutMixPipeline",
    "FastDDPMPipeline",
    "FusedDDPMScheduler",
    "PaperUNet2DModel",
    "VariationPipeline",
    "__version__",
    "load_config",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'fastddpm' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register()
