"""Launchers' wishes beside processes: taken where a setting of ours means the same, else refused by name.

`accelerate launch` hands its config on in variables of the environment; torchrun and the others set none of these.
"""

import os
from dataclasses import replace
from typing import TypeVar

from accelerate.utils import parse_flag_from_env

Kind = TypeVar("Kind")
_ENGINES = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "parallelism_config",
    "ACCELERATE_IN_TPU_POD": "a TPU",
}
_DYNAMO = {
    "MODE": ("default",),
    "USE_FULLGRAPH": ("false",),
    "USE_DYNAMIC": ("false",),
    "USE_REGIONAL_COMPILATION": ("false",),
}
"""option of dynamo -> what `train.compile` does too"""


def check_launcher(*, takes_compile: bool = False) -> None:
    """Check that all that the launcher asks for will be done.

    Args:
        takes_compile: the work can be compiled; see `asks_to_compile`.
    Raises: ValueError: several processes, of which one was started; another engine than DDP, accumulation, fp8, or a
        compiler that plays no part here.
    """
    env = os.environ
    if "ACCELERATE_MIXED_PRECISION" in env and "MASTER_ADDR" in env and "WORLD_SIZE" not in env:
        raise ValueError(
            "accelerate launch was asked for several processes but started one, as it does with --cpu; use "
            "`accelerate launch --config_file launch/cpu-2.yaml train.py`, or `torchrun`"
        )
    for name, engine in _ENGINES.items():
        if parse_flag_from_env(name):
            raise ValueError(
                f"the launcher asks for {engine}, and processes share their work by DDP here; in its config set "
                f"distributed_type: MULTI_GPU, and leave the section of {engine} out. For what does not fit into "
                f"memory there are train.micro_batch_size and train.gradient_checkpointing"
            )
    if int(os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")) > 1:
        raise ValueError(
            "the launcher sets gradient_accumulation_steps; accumulation follows from train.batch_size and "
            "train.micro_batch_size here: set those, and leave the launcher's option out"
        )
    if os.environ.get("ACCELERATE_MIXED_PRECISION") == "fp8":
        raise ValueError("the launcher asks for mixed precision 'fp8'; use 'no', 'bf16' or 'fp16'")
    if asks_to_compile() and not takes_compile:
        raise ValueError("the launcher asks for dynamo_backend INDUCTOR, and this is not compiled; set it to 'no'")


def as_launched(settings: Kind) -> Kind:
    """Settings, of a run's training or of a drawing, that `compile` if the launcher asks to."""
    return replace(settings, compile=True) if asks_to_compile() else settings  # type: ignore[type-var]


def asks_to_compile() -> bool:
    """True if the launcher's dynamo_backend is INDUCTOR, which is what `train.compile` is.

    Raises: ValueError: another backend, or options that `train.compile` does not have.
    """
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").upper()
    if backend == "NO":
        return False
    if backend != "INDUCTOR":
        raise ValueError(f"the launcher asks for dynamo_backend {backend}; use INDUCTOR, or --train.compile true")
    for option, taken in _DYNAMO.items():
        found = os.environ.get(f"ACCELERATE_DYNAMO_{option}", taken[0])
        if found.lower() not in taken:
            raise ValueError(
                f"the launcher asks for dynamo_{option.lower()} {found}, and networks are compiled with dynamo's "
                f"defaults here; leave it out"
            )
    return True
