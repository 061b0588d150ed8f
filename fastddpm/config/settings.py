"""What a run is: every setting, its meaning (the docstring under it, also its `--help`), and what must fit together."""

import math
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fastddpm.config.samplers import SamplerName, check_steps

_STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataConfig:
    """Which images."""

    source: str = "digits"
    """"digits" (5,000 real MNIST digits, packaged); a folder or .zip of images (class folders become labels); CelebA's
    folder; an IDX, .npz, .npy or .parquet file; or a data set for `datasets`: a folder, or a name on the Hub"""
    subset: str | None = None
    """of a data set for `datasets` that has several, such as a language or a resolution"""
    image_column: str | None = None
    """of a table; null: the only one that holds images"""
    label_column: str | None = None
    """of a table; null: the only one that holds classes, if there is one; none: go without labels"""
    streaming: bool = False
    """read a table in one pass as it arrives, keeping only what is trained on; needs image_size and channels"""
    train_split: str | None = None
    """of a source with named splits: which one is trained on; null: train"""
    held_out_split: str | None = None
    """which one the held-out images are drawn from; null: the one that is trained on"""
    center_crop: int | None = None
    """cut this many pixels a side out of the middle before scaling; null: the largest square, if image_size is set"""
    image_size: int | None = None
    """side in pixels; null: the images' own size, which must then be one for all"""
    channels: Literal[1, 3] | None = None
    """null: 1 if every image is grayscale, else 3"""
    background: tuple[int, int, int] | None = None
    """colour, each part 0 to 255, that transparent pixels are laid on; null: an image with such pixels is a bad file"""
    num_images: int | None = None
    """training images, drawn at random by the seed; null: all that are not held out"""
    num_held_out: int = 0
    """images kept out of training, for the held-out loss; copies of them are kept out too"""
    on_bad_file: Literal["fail", "skip"] = "fail"
    """what to do when a file cannot be used"""
    max_bad_files: int = 10
    """with on_bad_file skip: more bad files than this are an error all the same"""
    cache_dir: str | None = None
    """where decoded images are kept; null: $FASTDDPM_CACHE, else ~/.cache/fastddpm"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelConfig:
    """The U-Net; fields from `class_conditional` to `patch_size` go beyond the paper."""

    architecture: Literal["PaperUNet2DModel", "UNet2DModel"] = "PaperUNet2DModel"
    """the paper's network, or diffusers' own"""
    init_from: str | None = None
    """start from these weights: the folder, or the id on the Hub, of a DDPM pipeline or of a U-Net alone"""

    block_out_channels: tuple[int, ...] = (64, 128, 256)
    """one width a level, the last is the bottleneck"""
    norm_type: Literal["batch", "group"] = "batch"
    """the paper: batch for MNIST, group for CelebA; UNet2DModel has group only"""
    norm_num_groups: int = 32
    """groups of GroupNorm"""
    time_embedding_dim: int = 100
    """d of the sinusoidal table (Eq. 5), even"""
    class_conditional: bool = False
    """learn the labels of the data; a null class stands for "any" """
    block_type: Literal["paper", "residual"] = "paper"
    """the paper's block, or a residual one"""
    attention_levels: tuple[int, ...] = ()
    """levels (0 is the finest) followed by self-attention"""
    attention_head_dim: int = 32
    """channels of an attention head"""
    patch_size: int = 1
    """the U-Net works on patches of this many pixels a side"""
    layers_per_block: int = 2
    """residual blocks a level, of UNet2DModel"""
    attention_backend: str | None = None
    """xformers, or another of diffusers' attention backends; null: torch's scaled_dot_product_attention"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SchedulerConfig:
    """The diffusion process; the defaults are the paper's."""

    num_train_timesteps: int = 1000
    """length of the chain, T"""
    beta_start: float = 1e-4
    """first beta"""
    beta_end: float = 0.02
    """last beta"""
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"] = "linear"
    """from the first beta to the last"""
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    """what the U-Net predicts: the noise (the paper), the velocity, or x_0"""
    variance_type: Literal["fixed_small", "fixed_large"] = "fixed_small"
    """sigma_t^2 of the reverse step: the posterior variance (the paper's code), or beta_t"""
    clip_sample: bool = False
    """clip the predicted x_0 to [-1, 1] at every reverse step; the paper does not"""
    rescale_betas_zero_snr: bool = False
    """no signal at all is left at the last timestep (Lin et al. 2024); not with prediction_type epsilon"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainConfig:
    """How long, how fast, in which precision."""

    num_images_seen: int = 200_000
    """length of the run in images, rounded up to whole batches"""
    batch_size: int = 64
    """global: the images of one optimizer step over all processes"""
    micro_batch_size: int | Literal["auto"] | None = None
    """images of one forward pass, divides batch_size; null: batch_size / number of processes; auto: the largest that
    fits into memory, found once and kept in the run folder"""
    learning_rate: float = 1e-3
    """peak of the schedule"""
    lr_schedule: Literal["constant", "cosine", "cosine_with_restarts", "linear", "polynomial"] = "constant"
    """after the warm-up"""
    lr_num_cycles: int = 3
    """of lr_schedule cosine_with_restarts: how often the rate falls from the peak; 1 is plain cosine"""
    lr_warmup_steps: int = 0
    """optimizer steps from 0 to the peak"""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """of AdamW"""
    adam_epsilon: float = 1e-8
    """of AdamW"""
    weight_decay: float = 0.0
    """of AdamW"""
    gradient_checkpointing: bool = False
    """compute activations again in the backward pass: less memory, about a third more time"""
    max_grad_norm: float | None = 1.0
    """gradients are scaled down to this norm; null: never"""
    ema_decay: float | tuple[float, ...] = 0.999
    """of the weights that are saved; warmed up as min(decay, (1 + n) / (10 + n)) over the optimizer steps n, so a
    decay is in full force after about 9 / (1 - decay) of them; 0: no averaging. Of several, the first makes previews
    and `unet/`, and each other one is saved and drawn beside it, in `ema-<decay>/`"""
    timestep_sampling: Literal["uniform", "stratified"] = "uniform"
    """one t an image, independent (the paper), or one from each of batch_size equally likely strata"""
    timestep_focus: tuple[float, float, float] | None = None
    """center, width, share: this share of the timesteps falls in a normal bump at center * T, width * T wide"""
    min_snr_gamma: float | None = None
    """weigh the loss by min(SNR, gamma) (Hang et al. 2023); null: the paper's plain loss"""
    label_dropout: float = 0.1
    """share of labels replaced by the null class, for class-conditional models"""
    horizontal_flip: bool = False
    """mirror each image left to right with probability 1/2"""
    vertical_flip: bool = False
    """mirror each image top to bottom with probability 1/2"""
    random_crop: int | None = None
    """train on random squares of this many pixels a side, of images stored larger; null: whole images"""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """auto: bf16 where the device is faster in it (a GPU that has it; on CPUs Intel's AMX, AMD, Arm), else no"""
    compile: bool = False
    """torch.compile the U-Net"""
    num_processes: int | None = None
    """refuse to start with another number of processes; null: take what the launcher gives"""
    num_threads: int | None = None
    """CPU threads of a process; null: this machine's cores, shared among its processes"""
    log_every: int = 50
    """optimizer steps between rows of metrics.jsonl"""
    evaluate_every: int = 0
    """optimizer steps between the losses of the averaged weights on held-out and on training images (keyed noise,
    comparable); 0: only at the end"""
    checkpoint_every: int = 1000
    """optimizer steps between checkpoints; 0: only the last"""
    keep_checkpoints: int = 2
    """the newest checkpoints that stay"""
    resume: Literal["auto", "never"] = "auto"
    """auto: go on from the run folder's newest whole checkpoint; never: refuse a folder that has one"""

    @property
    def ema_decays(self) -> tuple[float, ...]:
        """Every decay, the main one first."""
        return self.ema_decay if isinstance(self.ema_decay, tuple) else (self.ema_decay,)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SampleConfig:
    """The pictures drawn at the end of a run and as previews."""

    num_images: int = 64
    """in samples.png and in a preview"""
    scheduler: SamplerName = "ddpm"
    """draws every picture of the run: the paper's, or a solver that draws no noise on its way and needs fewer steps"""
    num_inference_steps: int = 100
    """reverse steps of each picture; with scheduler ddim a divisor of scheduler.num_train_timesteps"""
    guidance_scale: float = 1.0
    """for class-conditional models: 1: none; above: further from what is drawn without a label"""
    seed: int = 0
    """image i is drawn from seed + i"""
    micro_batch_size: int = 64
    """images of one forward pass"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class WatchConfig:
    """What is looked at while a run goes on; none of it changes the weights. Previews are drawn as `sample` says."""

    preview_every_images: int = 0
    """images between previews, drawn after the first step that reaches each multiple; 0: none"""
    nearest: bool = True
    """compare the samples of previews and of the end with the training images (with random_crop: their middle), and
    warn if they are copies"""
    features: str | None = None
    """a TorchScript file that maps (B, 3, H, W) uint8 to (B, D) features, such as an Inception network, for KID"""
    kid_every_images: int = 0
    """images between KID measurements, also at the end; 0: none"""
    kid_num_samples: int = 1000
    """samples drawn for each KID"""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """also write the rows of metrics.jsonl there, through Accelerate; each needs its extra"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RunConfig:
    """One experiment."""

    output_dir: str
    """the run folder; `runs/<name of the config>` when a config file is given"""
    seed: int = 0
    """of every random draw of the run"""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    watch: WatchConfig = WatchConfig()

    def __post_init__(self) -> None:
        _check_counts(self)
        check_data(self.data)
        _check_model(self)
        _check_watch(self.watch)
        _check_sample(self)
        train = self.train
        micro = train.micro_batch_size
        if isinstance(micro, int) and train.batch_size % micro:
            below = train.batch_size // micro * micro
            ways = " or ".join(str(n) for n in (below, below + micro) if n > 0)
            raise ValueError(
                f"train.batch_size ({train.batch_size}) must be a multiple of train.micro_batch_size ({micro}); "
                f"use --train.batch_size {ways}"
            )


_AT_LEAST_ONE = (
    "train.micro_batch_size", "train.random_crop",
    "train.num_images_seen", "train.batch_size", "train.log_every", "train.keep_checkpoints",
    "sample.num_images", "sample.num_inference_steps", "sample.micro_batch_size",
    "scheduler.num_train_timesteps", "data.num_images", "data.image_size", "data.center_crop",
    "train.num_processes", "train.num_threads", "train.lr_num_cycles",
    "model.patch_size", "model.norm_num_groups", "model.attention_head_dim",
    "model.layers_per_block",
)  # fmt: skip
_AT_LEAST_ZERO = (
    "seed", "sample.seed", "data.num_held_out", "data.max_bad_files", "train.lr_warmup_steps", "train.weight_decay",
    "train.evaluate_every", "train.checkpoint_every", "train.learning_rate", "watch.preview_every_images",
    "watch.kid_every_images",
)  # fmt: skip
_POSITIVE = ("train.max_grad_norm", "train.min_snr_gamma", "train.adam_epsilon")
_SHARES = ("train.ema_decay", "train.label_dropout")


def _check_counts(config: RunConfig) -> None:
    for section in ("train", "scheduler", "sample"):
        for name, value in vars(getattr(config, section)).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
                raise ValueError(f"{section}.{name} is {value}; it must be finite")
    for name in _AT_LEAST_ONE:
        value = value_of(config, name)
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    for name in _AT_LEAST_ZERO:
        if value_of(config, name) < 0:
            raise ValueError(f"{name} is {value_of(config, name)}; it must not be negative")
    for name in _POSITIVE:
        value = value_of(config, name)
        if value is not None and value <= 0:
            raise ValueError(f"{name} is {value}; it must be above 0, or null")
    process, focus = config.scheduler, config.train.timestep_focus
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
    for name in _SHARES:
        value = value_of(config, name)
        if not all(0 <= share < 1 for share in (value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"{name} is {value}; it must be at least 0 and below 1")
    decays = config.train.ema_decays
    if len({f"{decay:g}" for decay in decays}) != len(decays) or not decays:
        raise ValueError(f"train.ema_decay is {decays}; wanted one decay, or several that differ")


def check_data(data: DataConfig) -> None:
    """Raises: ValueError: settings that do not fit together."""
    if data.background is not None and not all(0 <= part <= 255 for part in data.background):
        raise ValueError(f"data.background is {data.background}; wanted red, green and blue, each from 0 to 255")
    if data.streaming and (data.image_size is None or data.channels is None):
        raise ValueError(
            "data.streaming reads its images once, so what they are made into must be known before: set "
            "--data.image_size and --data.channels"
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


def _check_model(config: RunConfig) -> None:
    if config.sample.guidance_scale != 1.0 and not config.model.class_conditional:
        raise ValueError(
            f"sample.guidance_scale is {config.sample.guidance_scale}, which only class-conditional models can follow; "
            "use --sample.guidance_scale 1, or --model.class_conditional true with labelled images"
        )
    if config.model.init_from is None:  # with it, the architecture is that of the weights, known when they are read
        check_architecture(config.model, config.model.architecture)


def _check_sample(config: RunConfig) -> None:
    num_train = config.scheduler.num_train_timesteps
    steps = min(config.sample.num_inference_steps, num_train)
    check_steps(config.sample.scheduler, num_train, steps, "sample.num_inference_steps")


MIN_KID_SAMPLES = 10


def _check_watch(watch: WatchConfig) -> None:
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


def check_architecture(model: ModelConfig, architecture: str) -> None:
    """Raises: ValueError: a setting, not at its default, that this architecture does not have."""
    defaults = ModelConfig()
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
    section, _, field = name.rpartition(".")
    return getattr(getattr(config, section) if section else config, field)
