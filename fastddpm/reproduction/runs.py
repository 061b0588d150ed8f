"""The training runs that a reproduction is made of, from the files that its config names."""

from pathlib import Path
from typing import Any

from fastddpm.config import DCGANConfig, ReproductionConfig, RunConfig, dotted, load_config, load_config_of


def runs_of(config: ReproductionConfig) -> tuple[RunConfig, dict[str, DCGANConfig]]:
    """The DDPM's training and the DCGAN's, by name of its settings; lengths are those of their files."""
    folder = Path(config.output_dir)
    shared: dict[str, Any] = {f"data.{name}": value for name, value in config.data.items()}
    shared |= {"data.source": config.source, "seed": config.seed}
    if config.num_threads is not None:
        shared["train.num_threads"] = config.num_threads
    own = dotted(config.ddpm.overrides)
    ddpm = load_config(config.ddpm.config, {**shared, **own, "output_dir": str(folder / "ddpm")})
    dcgans = {
        name: load_config_of(
            DCGANConfig,
            config.dcgan.config,
            {**shared, **dotted(settings), "output_dir": str(folder / f"dcgan-{name}")},
        )
        for name, settings in config.dcgan.settings.items()
    }
    return ddpm, dcgans
