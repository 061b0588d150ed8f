"""Settings of a run: typed, checked once at the edge.

Nothing here imports torch or diffusers, so that `--help` and a refused config are quick.
"""

from fastddpm.config.checks import SamplerName, check_architecture, check_steps, value_of
from fastddpm.config.describe import HARMLESS, differences, field_names, help_text, to_yaml, walk_fields
from fastddpm.config.reading import config_from_dict, dotted, find_config, load_config, load_config_of
from fastddpm.config.runs import load_run, newest_manifest
from fastddpm.config.settings import (
    AugmentConfig,
    DataConfig,
    HubConfig,
    ModelConfig,
    RunConfig,
    SampleConfig,
    SchedulerConfig,
    TrainConfig,
    WatchConfig,
)
