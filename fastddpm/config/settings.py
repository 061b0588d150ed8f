"""Settings of a run: each with its meaning (the docstring under it, also its `--help`), and what must fit together."""

from typing import Annotated, Literal

from pydantic import Field

from fastddpm.config.bounded_types import Count, Level, NotNegative, Part, Positive, Share, Whole, strict
from fastddpm.config.checks import SamplerName, check_run


@strict
class AugmentConfig:
    """Largest moves and changes of training images, each time drawn anew; all 0: they stay as they are.

    The paper's network is told of each change and asked for none when it draws (Karras et al. 2022, App. F.2).
    """

    shift: Share = 0.0
    """Largest shift in each direction, as a share of the side; the image is mirrored at its edge."""
    turn: NotNegative = 0.0
    """Largest turn either way, in degrees."""
    zoom: NotNegative = 0.0
    """Largest zoom: 0.1 is from 1/1.1 of the size to 1.1 times it."""
    contrast: NotNegative = 0.0
    """Largest change of contrast: 0.1 is from 1/1.1 of the image's own to 1.1 times it."""
    brightness: Share = 0.0
    """Largest change of brightness either way, as a share of the range from black to white."""
    probability: Part = 0.5
    """Share of the images that are changed at all, all their amounts drawn at once."""

    @property
    def is_on(self) -> bool:
        """True if anything is changed."""
        return any((self.shift, self.turn, self.zoom, self.contrast, self.brightness))


@strict
class DataConfig:
    """Images to train on."""

    source: str = "digits"
    """Images: "digits" (5,000 real MNIST digits, packaged); a folder, .zip or .tar of images (class folders become
    labels, or metadata.jsonl beside them); CelebA's folder; a .csv list; an IDX, .npz, .npy or .parquet file; or a data
    set for `datasets`, as a folder or a name on the Hub."""
    subset: str | None = None
    """Part of a data set for `datasets` that has several, such as a language or a resolution."""
    image_column: str | None = None
    """Column of a table or list that holds the images; null: the only one that does."""
    label_column: str | None = None
    """Column of a table or list that holds the classes; null: the only one that does, if any; none: go without labels,
    whatever the source."""
    streaming: bool = False
    """Read a table in one pass as it arrives, keeping only what is trained on; needs image_size and channels."""
    train_split: str | None = None
    """Split to train on, of a source with named splits; null: train."""
    held_out_split: str | None = None
    """Split that the held-out images are drawn from; null: the one that is trained on."""
    layout: Literal["classes", "splits", "defects", "flat"] | None = None
    """Meaning of first-level folders: classes; splits; one of normal pictures to train on, and kinds of defects
    (defects); none (flat). null: told by their names and masks."""
    center_crop: Count | None = None
    """Side in pixels of the square cut out of the middle before scaling; null: the largest, if image_size is set."""
    image_size: Count | Annotated[tuple[Count, Count], Field(strict=False)] | None = None
    """Size in pixels, one side or [height, width]; null: the images' own size, which must then be one for all."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """Way of other shapes to image_size; crop: cut at both ends of the longer side; pad: whole, between bars in the
    colour of background, else black; stretch: each side by its own factor."""
    channels: Literal[1, 3] | None = None
    """Channels of an image; null: 1 if every image is grayscale, else 3."""
    background: tuple[Level, Level, Level] | None = None
    """Colour, each part 0 to 255, that transparent pixels are laid on; null: an image with such pixels is a bad
    file. Also of the bars of fit pad; null: black."""
    color_management: Literal["srgb", "off"] = "srgb"
    """Take embedded colour profiles to sRGB, or gray of its curve (srgb), or pass over them (off)."""
    draft: bool = True
    """Decode large JPEGs at the reduced scale that image_size needs."""
    value_range: tuple[float, float] | None = None
    """Black and white in pictures of more than 8 bits; null: refused."""
    window: tuple[float, float] | None = None
    """Middle and width of DICOM's window; null: its own."""
    num_images: Count | None = None
    """Number of training images, drawn at random by the seed; null: all that are not held out."""
    num_held_out: Whole | Share = 0
    """Number of images kept out of training, for the held-out loss, `detect` and `evaluate`; copies of them are kept
    out too. Below 1: that share of the images, but 20 at least (so many does `detect` want), or half of them where
    there are fewer than 40."""
    group: str | None = None
    """Pictures that stay on one side of the split; null: near-copies, and what was made from one picture; none: equal
    ones only; else a column of a table, a level of folders (0: the first), or a regular expression: pictures belong
    together whose names match it alike, such as part\\d+."""
    allow_change: bool = False
    """Let a run go on with changed pictures, once; those it knows stay in their parts, new ones join."""
    augment: AugmentConfig = AugmentConfig()
    on_bad_file: Literal["fail", "skip"] = "fail"
    """Answer to a file that cannot be used: end with its name (fail), or go on without it (skip)."""
    max_bad_files: Whole = 10
    """Maximum number of bad files with on_bad_file skip; more are an error all the same."""
    cache_dir: str | None = None
    """Folder of decoded images; null: $FASTDDPM_CACHE, else ~/.cache/fastddpm."""

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) of `image_size`."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size


@strict
class ModelConfig:
    """The U-Net; fields from `class_conditional` to `patch_size` go beyond the paper."""

    architecture: Literal["PaperUNet2DModel", "UNet2DModel"] = "PaperUNet2DModel"
    """Network: the paper's, or diffusers' own."""
    init_from: str | None = None
    """Weights to start from: the folder, or the id on the Hub, of a DDPM pipeline or of a U-Net alone."""

    block_out_channels: tuple[int, ...] = (64, 128, 256)
    """Width of each level; the last is the bottleneck."""
    norm_type: Literal["batch", "group"] = "batch"
    """Normalization. The paper takes batch for MNIST, group for CelebA; UNet2DModel has group only."""
    norm_num_groups: Count = 32
    """Groups of GroupNorm."""
    time_embedding_dim: int = 100
    """Width d of the sinusoidal table (Eq. 5), even."""
    class_conditional: bool = False
    """Learn the labels of the data; a null class stands for "any"."""
    block_type: Literal["paper", "residual"] = "paper"
    """Block: the paper's, or a residual one."""
    attention_levels: tuple[int, ...] = ()
    """Levels (0 is the finest) followed by self-attention."""
    attention_head_dim: Count = 32
    """Channels of an attention head."""
    patch_size: Count = 1
    """Side in pixels of the patches that the U-Net works on."""
    layers_per_block: Count = 2
    """Residual blocks per level, in UNet2DModel."""
    attention_backend: str | None = None
    """Attention: xformers, or another of diffusers' backends; null: torch's scaled_dot_product_attention."""


@strict
class SchedulerConfig:
    """The diffusion process; the defaults are the paper's."""

    num_train_timesteps: Count = 1000
    """Length of the chain, T."""
    beta_start: float = 1e-4
    """First beta."""
    beta_end: float = 0.02
    """Last beta."""
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"] = "linear"
    """Curve from the first beta to the last."""
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    """Output of the U-Net: the noise (the paper), the velocity, or x_0."""
    variance_type: Literal["fixed_small", "fixed_large"] = "fixed_small"
    """Variance sigma_t^2 of the reverse step: the posterior's (the paper's code), or beta_t."""
    clip_sample: bool = False
    """Clip the predicted x_0 to [-1, 1] at every reverse step; the paper does not."""
    rescale_betas_zero_snr: bool = False
    """Leave no signal at all at the last timestep (Lin et al. 2024); not with prediction_type epsilon."""


@strict
class TrainConfig:
    """Length, speed and precision of training."""

    num_images_seen: Count = 200_000
    """Length of the run in images, rounded up to whole batches."""
    batch_size: Count = 64
    """Images of one optimizer step over all processes."""
    micro_batch_size: Count | Literal["auto"] | None = None
    """Images of one forward pass, a divisor of batch_size; null: batch_size / number of processes; auto: the largest
    that fits into memory, found once and kept in the run folder."""
    learning_rate: NotNegative = 1e-3
    """Peak of the schedule."""
    lr_schedule: Literal["constant", "cosine", "cosine_with_restarts", "linear", "polynomial"] = "constant"
    """Course of the rate after the warm-up."""
    lr_num_cycles: Count = 3
    """Falls from the peak, with lr_schedule cosine_with_restarts; 1 is plain cosine."""
    lr_warmup_steps: Whole = 0
    """Optimizer steps from 0 to the peak."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Betas of AdamW."""
    adam_epsilon: Positive = 1e-8
    """Epsilon of AdamW."""
    weight_decay: NotNegative = 0.0
    """Weight decay of AdamW."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    max_grad_norm: Positive | None = 1.0
    """Norm that gradients are scaled down to; null: never."""
    on_spike: Literal["log", "skip", "ignore"] = "log"
    """Answer to a gradient whose norm is spike_factor times the usual: name the step and its images in the log (log),
    leave the weights as they were too (skip), or nothing. Steps without a finite gradient are always left out and
    named."""
    spike_factor: Positive = 10.0
    """Factor over the running geometric mean of the gradient's norm that makes a spike."""
    max_skipped_in_a_row: Count = 10
    """Number of steps in a row without a finite gradient that ends a run."""
    ema_decay: Share | tuple[Share, ...] = 0.999
    """Decay of the averaged weights, which are saved; 0: no averaging. It is warmed up as min(decay, (1 + n) / (10 +
    n)) over the optimizer steps n: in full force after about 9 / (1 - decay) of them. The first of several makes
    previews and `unet/`; each other one is saved and drawn beside it, in `ema-<decay>/`."""
    timestep_sampling: Literal["uniform", "stratified"] = "uniform"
    """Choice of t for each image: independent (the paper), or one from each of batch_size equally likely strata."""
    timestep_focus: tuple[float, float, float] | None = None
    """Center, width, share: this share of the timesteps falls in a normal bump at center * T, width * T wide."""
    min_snr_gamma: Positive | None = None
    """Gamma of the loss's weights min(SNR, gamma) (Hang et al. 2023); null: the paper's plain loss."""
    label_dropout: Share = 0.1
    """Share of labels replaced by the null class, for class-conditional models."""
    horizontal_flip: bool = False
    """Mirror each image left to right with probability 1/2."""
    vertical_flip: bool = False
    """Mirror each image top to bottom with probability 1/2."""
    random_crop: Count | None = None
    """Side in pixels of random squares to train on, of images stored larger; null: whole images."""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Precision; auto: bf16 where the device is faster in it (a GPU that has it; on CPUs Intel's AMX, AMD, Arm),
    fp16 on older NVIDIA GPUs, else no."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the U-Net with torch.compile; auto: a run of more than ten minutes without it, and without determinism,
    tries it at its start and keeps it if it is faster."""
    determinism: Literal["exact", "elastic"] | None = None
    """Promise on bits. exact: only kernels that give the same bits each time, so that a stopped run ends as one that
    went through. elastic: also sums in a fixed tree, for the bits of any number of processes (1, 2, 4, ...), even if it
    changes in the middle. null: the fastest kernels, which on CPUs are exact too."""
    num_processes: Count | None = None
    """Number of processes without which the run refuses to start; null: what the launcher gives."""
    num_threads: Count | None = None
    """CPU threads of a process; null: this machine's cores, shared among its processes."""
    hang_timeout: Positive | None = 600.0
    """Seconds without a step after which several processes find out which of them is silent, say so and end; null: they
    wait for hours."""
    log_every: Count = 50
    """Optimizer steps between rows of metrics.jsonl."""
    evaluate_every: Whole = 0
    """Optimizer steps between the losses of the averaged weights on held-out and on training images (keyed noise,
    comparable); 0: only at the end."""
    checkpoint_every: Whole = 1000
    """Optimizer steps between checkpoints; 0: only the last."""
    keep_checkpoints: Count = 2
    """Number of checkpoints that stay, the newest."""
    resume: Literal["auto", "never"] = "auto"
    """Go on from the run folder's newest whole checkpoint (auto), or refuse a folder that has one (never)."""

    @property
    def ema_decays(self) -> tuple[float, ...]:
        """Every decay, the main one first."""
        return self.ema_decay if isinstance(self.ema_decay, tuple) else (self.ema_decay,)


@strict
class SampleConfig:
    """The pictures drawn at the end of a run and as previews."""

    num_images: Count = 64
    """Number of images in samples.png and in a preview."""
    scheduler: SamplerName = "ddpm"
    """Solver of every picture of the run: the paper's, or one that draws no noise on its way and needs fewer steps."""
    num_inference_steps: Count = 100
    """Reverse steps of each picture; with scheduler ddim a divisor of scheduler.num_train_timesteps, with unipc 8."""
    guidance_scale: float = 1.0
    """Guidance of class-conditional models; 1: none; above: further from what is drawn without a label."""
    seed: Whole = 0
    """Seed of the first image; image i is drawn from seed + i."""
    micro_batch_size: Count = 64
    """Images of one forward pass."""


@strict
class WatchConfig:
    """Looks at a run while it goes on; none of them changes the weights. Previews are drawn as `sample` says."""

    preview_every_images: Whole = 0
    """Images between previews, drawn after the first step that reaches each multiple; 0: none."""
    nearest: bool = True
    """Compare the samples of previews and of the end with the training images (with random_crop: their middle), and
    warn if they are copies."""
    features: str | None = None
    """TorchScript file that maps (B, 3, H, W) uint8 to (B, D) features, such as an Inception network, for KID."""
    kid_every_images: Whole = 0
    """Images between KID measurements, also at the end; 0: none."""
    kid_num_samples: int = 1000
    """Number of samples drawn for each KID."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Trackers that get the rows of metrics.jsonl too, through Accelerate; each needs its extra."""


@strict
class HubConfig:
    """Settings of `push_to_hub`; the token is that of HF_TOKEN or of `hf auth login`, and is written nowhere."""

    private: bool = False
    """Show the repository to its owner only."""
    revision: str | None = None
    """Branch, made if it is not there; null: main."""
    every_images: Whole = 0
    """Images seen between pushes of the averaged weights while training goes on; 0: at the end only."""
    license: str | None = None
    """Licence of the weights in the Hub's words, such as apache-2.0; null: the card names none."""


@strict
class RunConfig:
    """Train on your images, go on where a run stopped, save a pipeline for diffusers and draw its pictures. Without
    options it trains on real digits: about five minutes on a recent CPU, eleven on an older one (AVX2 only)."""

    output_dir: str
    """Run folder; `runs/<name of the config>` when a config file is given."""
    push_to_hub: str | None = None
    """Repository, as user/name, that the saved model is published in when the run ends."""
    seed: Whole = 0
    """Seed of every random draw of the run."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    watch: WatchConfig = WatchConfig()
    hub: HubConfig = HubConfig()

    def __post_init__(self) -> None:
        check_run(self)
