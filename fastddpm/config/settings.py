"""What a run is: every setting, its meaning (the docstring under it, also its `--help`), and what must fit together."""

from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fastddpm.config.checks import SamplerName, check_run

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
    on_spike: Literal["log", "skip", "ignore"] = "log"
    """what to do when the gradient's norm is spike_factor times what is usual: name the step and its images in the log,
    or also leave the weights as they were; steps without a finite gradient are always left out and named"""
    spike_factor: float = 10.0
    """over the running geometric mean of the gradient's norm"""
    max_skipped_in_a_row: int = 10
    """steps without a finite gradient, one after the other, that end a run"""
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
    determinism: Literal["exact", "elastic"] | None = None
    """exact: only kernels that give the same bits each time, so that a run that was stopped ends as one that was not;
    null: the fastest ones, which on CPUs are such too; elastic: beside that, sums in a fixed tree, so that the bits are
    those of any number of processes (1, 2, 4, ...), also when it changes in the middle"""
    num_processes: int | None = None
    """refuse to start with another number of processes; null: take what the launcher gives"""
    num_threads: int | None = None
    """CPU threads of a process; null: this machine's cores, shared among its processes"""
    hang_timeout: float | None = 600.0
    """seconds without a step after which several processes find out which of them is silent, say so and end; null:
    they wait for hours"""
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
class HubConfig:
    """How `push_to_hub` pushes; the token is that of HF_TOKEN or of `hf auth login`, and is written nowhere."""

    private: bool = False
    """only the owner sees the repository"""
    revision: str | None = None
    """a branch, made if it is not there; null: main"""
    every_images: int = 0
    """also push the averaged weights each time so many more images were seen, while training goes on; 0: at the end"""
    license: str | None = None
    """the Hub's word for the licence of the weights, such as apache-2.0; null: the card names none"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RunConfig:
    """One experiment."""

    output_dir: str
    """the run folder; `runs/<name of the config>` when a config file is given"""
    push_to_hub: str | None = None
    """user/name: publish the saved model there when the run ends"""
    seed: int = 0
    """of every random draw of the run"""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    watch: WatchConfig = WatchConfig()
    hub: HubConfig = HubConfig()

    def __post_init__(self) -> None:
        check_run(self)
