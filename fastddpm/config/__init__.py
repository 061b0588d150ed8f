"""Settings of a run: typed, checked once at the edge.

Nothing here imports torch or diffusers, so that `--help` and a refused config are quick.
"""

from fastddpm.config.checks import check_architecture, check_steps, value_of
from fastddpm.config.describe import differences, field_names, help_text, to_yaml
from fastddpm.config.reading import config_from_dict, dotted, load_config, load_config_of
from fastddpm.config.runs import load_run, newest_manifest
from fastddpm.config.settings import AugmentConfig, DataConfig, ModelConfig, RunConfig, SchedulerConfig, TrainConfig
