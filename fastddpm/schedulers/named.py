"""diffusers' own solvers over the noise schedule that a model was trained with."""

from typing import Any

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from fastddpm.schedulers.fused_ddpm import FusedDDPMScheduler

_NAMES = {FusedDDPMScheduler: "ddpm", DDIMScheduler: "ddim", DPMSolverMultistepScheduler: "dpmsolver++"}


def scheduler_named(name: str, trained_with: Any) -> Any:
    """The solver of a name, with every value of a scheduler's config that it has, and steps that start at T - 1.

    "ddim" draws no noise on its way (eta 0), and neither does "dpmsolver++" (second order), so that a seed decides a
    picture by its first noise alone. It clips x_0 only if `trained_with` does: DPM-Solver++ through its thresholding at
    a maximum of 1, which is the same.

    Raises: ValueError: an unknown name, or a range of clipping that the solver does not have.
    """
    config = {key: value for key, value in trained_with.config.items() if not key.startswith("_")}
    if name == "ddpm":
        return FusedDDPMScheduler.from_config({**config, "timestep_spacing": "trailing"})
    if name == "ddim":
        return DDIMScheduler.from_config({**config, "timestep_spacing": "trailing", "set_alpha_to_one": True})
    if name != "dpmsolver++":
        raise ValueError(f"scheduler is {name!r}; use ddpm, ddim or dpmsolver++")
    options = {"timestep_spacing": "trailing", "algorithm_type": "dpmsolver++", "solver_order": 2}
    if config.get("clip_sample"):
        if config.get("clip_sample_range", 1.0) != 1.0:
            raise ValueError(
                f"dpmsolver++ clips to 1 only, the model to {config['clip_sample_range']}; use ddim or ddpm"
            )
        options |= {"thresholding": True, "sample_max_value": 1.0}
    return DPMSolverMultistepScheduler.from_config({**config, **options})


def name_of(scheduler: Any) -> str:
    """Name of a scheduler in `scheduler_named`; of others, their class."""
    return _NAMES.get(type(scheduler), type(scheduler).__name__)
