"""diffusers' own solvers over the noise schedule that a model was trained with."""

from typing import Any

from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from fastddpm.schedulers.fused_ddpm import FusedDDPMScheduler

_NAMES = {
    FusedDDPMScheduler: "ddpm",
    DDIMScheduler: "ddim",
    DPMSolverMultistepScheduler: "dpmsolver++",
    UniPCMultistepScheduler: "unipc",
}
_OF_TRAINING = DDPMScheduler().config.keys()


def scheduler_named(name: str, trained_with: Any) -> Any:
    """The solver of a name, over the noise schedule of another scheduler, and with steps that start at T - 1.

    "ddim" draws no noise on its way (eta 0), nor do "dpmsolver++" and "unipc" (both of second order), so that a seed
    decides a picture by its first noise alone. "unipc" spaces its noise levels as Karras et al. 2022 (Eq. 5) do.
    Each clips x_0 only if `trained_with` does: the last two through thresholding at a maximum of 1, which is the same.

    Raises: ValueError: an unknown name, or a range of clipping or a curve of betas that the solver does not have.
    """
    try:
        return _solver_named(name, trained_with)
    except NotImplementedError as error:
        curve = trained_with.config.beta_schedule
        raise ValueError(f"{name} has no beta_schedule {curve}, which the model was trained with; use ddpm") from error


def _solver_named(name: str, trained_with: Any) -> Any:
    config = {key: value for key, value in trained_with.config.items() if key in _OF_TRAINING and key[0] != "_"}
    clips = config.get("clip_sample", False)
    config |= {"timestep_spacing": "trailing"}
    if clips and config.get("sample_max_value", 1.0) == 1.0:  # how a solver clips that knows no clip_sample
        config["thresholding"] = False
    if name == "ddpm":
        return FusedDDPMScheduler.from_config(config)
    if name == "ddim":
        return DDIMScheduler.from_config({**config, "set_alpha_to_one": True})
    if name not in ("dpmsolver++", "unipc"):
        raise ValueError(f"scheduler is {name!r}; use ddpm, ddim, dpmsolver++ or unipc")
    if clips:
        if config.get("clip_sample_range", 1.0) != 1.0:
            raise ValueError(f"{name} clips to 1 only, the model to {config['clip_sample_range']}; use ddim or ddpm")
        config |= {"thresholding": True, "sample_max_value": 1.0}
    if name == "unipc":
        return UniPCMultistepScheduler.from_config({**config, "solver_order": 2, "use_karras_sigmas": True})
    return DPMSolverMultistepScheduler.from_config({**config, "algorithm_type": "dpmsolver++", "solver_order": 2})


def risk_of(name: str, trained_with: Any) -> str | None:
    """Say what may go wrong with a solver over this schedule; None: nothing that is known.

    Just below T cosine betas leave hardly a signal, and epsilon over it is x_0 times a thousand: of a network 1 % off,
    "ddim" and "dpmsolver++" draw 12 times the spread at 20 steps, "unipc" and "ddpm" do not.
    """
    config = trained_with.config
    is_steep = config.beta_schedule == "squaredcos_cap_v2" and config.prediction_type == "epsilon"
    if not is_steep or config.get("clip_sample") or config.get("thresholding") or name not in ("ddim", "dpmsolver++"):
        return None
    return (
        f"{name} over beta_schedule squaredcos_cap_v2 with prediction_type epsilon and no clipping multiplies small "
        "errors (1 % became 12 times the spread at 20 steps); use ddpm, unipc, clip_sample true or v_prediction"
    )


def name_of(scheduler: Any) -> str:
    """Name of a scheduler in `scheduler_named`; of others, their class."""
    return _NAMES.get(type(scheduler), type(scheduler).__name__)
