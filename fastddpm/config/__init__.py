"""Settings of a run: typed, checked once at the edge.

Nothing here imports torch or diffusers, so that `--help` and a refused config are quick.
"""

from fastddpm.config.checks import check_architecture, value_of
from fastddpm.config.dcgan import DCGANConfig, DCGANTrainConfig
from fastddpm.config.describe import HARMLESS, differences, field_names, help_text, to_yaml, walk_fields
from fastddpm.config.gain import GainConfig
from fastddpm.config.reading import config_from_dict, dotted, find_config, load_config, load_config_of
from fastddpm.config.reproduction import ReproductionConfig
from fastddpm.config.samplers import SamplerName, check_steps
from fastddpm.config.settings import (
    DataConfig,
    HubConfig,
    ModelConfig,
    RunConfig,
    SampleConfig,
    SchedulerConfig,
    TrainConfig,
    WatchConfig,
)

__all__ = [
    "HARMLESS",
    "DCGANConfig",
    "DCGANTrainConfig",
    "DataConfig",
    "GainConfig",
    "HubConfig",
    "ModelConfig",
    "ReproductionConfig",
    "RunConfig",
    "SampleConfig",
    "SamplerName",
    "SchedulerConfig",
    "TrainConfig",
    "WatchConfig",
    "check_architecture",
    "check_steps",
    "config_from_dict",
    "differences",
    "dotted",
    "field_names",
    "find_config",
    "help_text",
    "load_config",
    "load_config_of",
    "to_yaml",
    "value_of",
    "walk_fields",
]
