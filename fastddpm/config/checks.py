"""Checks of what must fit together in a run's settings; each error names the setting and what to do."""

import functools
from collections.abc import Iterable
from typing import Any, Literal

SamplerName = Literal["ddpm", "ddim", "dpmsolver++", "unipc"]
MIN_NORMAL = 20
"""images that `detect` calibrates with"""


def check_steps(sampler: str | None, num_train: int, steps: int, setting: str) -> None:
    """Raises: ValueError: more steps than timesteps; or DDIM and a number of steps that does not divide T. diffusers'
    DDIM goes down by T // steps, which then is not the distance of its timesteps.

    Args:
        num_train: T.
        setting: how the number is called where it was set.
    """
    if not 1 <= steps <= num_train:
        raise ValueError(f"{setting} is {steps}; it must be 1 to {num_train}")
    if sampler != "ddim" or num_train % steps == 0:
        return
    near = " or ".join(str(n) for n in nearest_divisors(num_train, steps) if n > 1)
    raise ValueError(
        f"{setting} is {steps}; ddim takes even steps over {num_train} timesteps, so it must divide {num_train}: use "
        f"{near}, or dpmsolver++ or ddpm, which take any number"
    )


def nearest_divisors(total: int, wanted: int) -> list[int]:
    """The divisors below and above a number that is none, 1 < wanted < total."""
    divisors = [n for n in range(1, total + 1) if total % n == 0]
    return [max(n for n in divisors if n < wanted), min(n for n in divisors if n > wanted)]


def check_starts(setting: str, starts: Iterable[int], num_train: int) -> None:
    """Raises: ValueError: a start outside of a chain of `num_train` timesteps."""
    for start in starts:
        if not 0 <= start <= num_train:
            raise ValueError(f"{setting} is {start}; it counts denoising steps, from 0 to {num_train}")


def check_steps_from(sampler: str | None, num_train: int, start: int, steps: int | None) -> None:
    """Raises: ValueError: steps that a solver does not have from a start timestep on."""
    if steps is None or start == 0:
        return
    if not 1 <= steps <= start:
        raise ValueError(f"num_inference_steps is {steps}; from start_timestep {start} it must be 1 to {start}")
    possible = [n for n in range(1, start + 1) if start % n == 0 and num_train % (start // n) == 0]
    if sampler == "ddim" and steps not in possible:
        near = sorted(sorted(possible, key=lambda n: abs(n - steps))[:3])
        raise ValueError(
            f"ddim has no {steps} steps from start_timestep {start} on its grid of {num_train}; use "
            f"num_inference_steps {', '.join(map(str, near))}, or dpmsolver++ or ddpm, which take any number"
        )


def check_run(config: Any) -> None:
    """Raises: ValueError: settings of a `RunConfig` that do not fit together."""
    _check_process(config)
    check_data(config.data)
    _check_model(config)
    _check_watch(config.watch)
    _check_sample(config)
    if config.push_to_hub is None and config.hub != type(config.hub)():
        raise ValueError("hub settings are given, but no push_to_hub; say where to, as --push_to_hub user/name")
    train = config.train
    micro = train.micro_batch_size
    if isinstance(micro, int) and train.batch_size % micro:
        below = train.batch_size // micro * micro
        ways = " or ".join(str(n) for n in (below, below + micro) if n > 0)
        raise ValueError(
            f"train.batch_size ({train.batch_size}) must be a multiple of train.micro_batch_size ({micro}); "
            f"use --train.batch_size {ways}"
        )
    _check_tree(train)


def _check_tree(train: Any) -> None:
    """Sums in a fixed tree want a fixed size of micro-batch, and a power of two of them."""
    if train.determinism != "elastic":
        return
    micro = train.micro_batch_size
    count = train.batch_size // micro if isinstance(micro, int) else 0
    if count & (count - 1) or not count:
        sizes = [train.batch_size >> k for k in range(4) if train.batch_size % (1 << k) == 0]
        raise ValueError(
            f"train.determinism elastic adds micro-batches pairwise: train.micro_batch_size is {micro!r}; wanted "
            f"train.batch_size ({train.batch_size}) over a power of two, such as {', '.join(map(str, sizes))}; at most "
            f"as many processes as micro-batches have work"
        )


def _check_process(config: Any) -> None:
    process, focus, decays = config.scheduler, config.train.timestep_focus, config.train.ema_decays
    if not 0 < process.beta_start <= process.beta_end < 1:
        raise ValueError(
            f"scheduler.beta_start {process.beta_start} and beta_end {process.beta_end} must be 0 < start <= end < 1"
        )
    if focus is not None and not (focus[1] > 0 and 0 <= focus[2] <= 1):
        raise ValueError(f"train.timestep_focus is {focus}; wanted (center, width > 0, share from 0 to 1)")
    if process.rescale_betas_zero_snr and process.prediction_type == "epsilon":
        raise ValueError(
            "scheduler.rescale_betas_zero_snr leaves no signal at the last timestep, where prediction_type epsilon "
            "cannot tell x_0; use --scheduler.prediction_type v_prediction or sample"
        )
    if len({f"{decay:g}" for decay in decays}) != len(decays) or not decays:
        raise ValueError(f"train.ema_decay is {decays}; wanted one decay, or several that differ")


def check_data(data: Any) -> None:
    """Raises: ValueError: settings that do not fit together."""
    if data.fit != "crop" and data.image_size is None:
        raise ValueError(
            f"data.fit is {data.fit} and data.image_size null, so pictures keep their sizes; give the size that they "
            "are made to fit, as in --data.image_size 64 or '[48, 64]'"
        )
    if data.streaming and (data.image_size is None or data.channels is None):
        raise ValueError(
            "data.streaming reads its images once, so what they are made into must be known before: set "
            "--data.image_size and --data.channels"
        )
    if data.streaming and data.num_images is not None and 0 < data.num_held_out < 1:
        raise ValueError(
            f"data.streaming with data.num_images reads no further than it must, and data.num_held_out "
            f"{data.num_held_out} is a share; wanted a number of images, such as "
            f"--data.num_held_out {max(MIN_NORMAL, round(data.num_held_out * data.num_images))}"
        )
    if data.held_out_split is not None and data.num_held_out == 0:
        raise ValueError(
            f"data.held_out_split is {data.held_out_split!r} and data.num_held_out 0; say how many images to hold out, "
            f"as in --data.num_held_out 512"
        )


OF_ONE_ARCHITECTURE = {
    "UNet2DModel": ("layers_per_block",),
    "PaperUNet2DModel": ("norm_type", "time_embedding_dim", "block_type", "patch_size"),
}


def _check_model(config: Any) -> None:
    if config.sample.guidance_scale != 1.0 and not config.model.class_conditional:
        raise ValueError(
            f"sample.guidance_scale is {config.sample.guidance_scale}, which only class-conditional models can follow; "
            "use --sample.guidance_scale 1, or --model.class_conditional true with labelled images"
        )
    if config.model.init_from is None:  # with it, the architecture is that of the weights, known when they are read
        check_architecture(config.model, config.model.architecture)
        _check_levels(config.model)


def _check_levels(model: Any) -> None:
    widths = model.block_out_channels
    for level in model.attention_levels:
        if not 0 <= level < len(widths):
            raise ValueError(
                f"model.attention_levels has {level}, and model.block_out_channels {list(widths)} has the levels "
                f"{', '.join(map(str, range(len(widths))))}: use these"
            )


def _check_sample(config: Any) -> None:
    num_train = config.scheduler.num_train_timesteps
    steps = min(config.sample.num_inference_steps, num_train)
    check_steps(config.sample.scheduler, num_train, steps, "sample.num_inference_steps")
    if config.scheduler.beta_schedule == "sigmoid" and config.sample.scheduler != "ddpm":
        raise ValueError(
            f"sample.scheduler {config.sample.scheduler} has no scheduler.beta_schedule sigmoid; use "
            "--sample.scheduler ddpm, or another beta_schedule"
        )


MIN_KID_SAMPLES = 10


def _check_watch(watch: Any) -> None:
    if watch.kid_every_images and watch.features is None:
        raise ValueError(
            f"watch.kid_every_images is {watch.kid_every_images}, and KID compares features; give a TorchScript file "
            "as --watch.features, or use --watch.kid_every_images 0"
        )
    if watch.features is not None and not watch.kid_every_images:
        raise ValueError(
            "watch.features is given, but watch.kid_every_images is 0: nothing would use it; say how many images lie "
            "between measurements, such as --watch.kid_every_images 50000, or leave watch.features out"
        )
    if watch.kid_num_samples < MIN_KID_SAMPLES:
        raise ValueError(
            f"watch.kid_num_samples is {watch.kid_num_samples}; KID needs at least {MIN_KID_SAMPLES}, and says little "
            "below 1000"
        )
    if len(set(watch.trackers)) < len(watch.trackers):
        raise ValueError(f"watch.trackers is {list(watch.trackers)}; name each tracker once")


def check_architecture(model: Any, architecture: str) -> None:
    """Raises: ValueError: a setting, not at its default, that this architecture does not have."""
    defaults = type(model)()
    if model.architecture not in (defaults.architecture, architecture):
        raise ValueError(f"model.architecture is {model.architecture}, but the weights are of a {architecture}")
    for other, names in OF_ONE_ARCHITECTURE.items():
        strangers = [name for name in names if getattr(model, name) != getattr(defaults, name)]
        if strangers and other != architecture:
            raise ValueError(
                f"model.{strangers[0]} is a setting of {other}, and this network is a {architecture}; leave it out, "
                f"or use a {other}"
            )


def value_of(config: Any, name: str) -> Any:
    """The value of a dotted field name."""
    return functools.reduce(getattr, name.split("."), config)
