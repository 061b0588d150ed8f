"""What a run is: frozen dataclasses, read from YAML and dotted overrides, checked once at the edge.

The docstring under each field is also its `--help`. This module imports neither torch nor diffusers, so that
`--help` and a refused config are quick.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

_STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataConfig:
    """Which images."""

    source: str = "digits"
    """"digits" (5,000 real MNIST digits, packaged), an IDX images file or its folder, or a folder of images"""
    image_size: int | None = None
    """side in pixels; null: the images' own size, which must then be one for all"""
    channels: Literal[1, 3] | None = None
    """null: 1 if every image is grayscale, else 3"""
    num_images: int | None = None
    """training images, drawn at random by the seed; null: all that are not held out"""
    num_held_out: int = 0
    """images kept out of training, for the held-out loss"""
    on_bad_file: Literal["fail", "skip"] = "fail"
    """what to do when a file cannot be used"""
    max_bad_files: int = 10
    """with on_bad_file skip: more bad files than this are an error all the same"""
    cache_dir: str | None = None
    """where decoded images are kept; null: $FASTDDPM_CACHE, else ~/.cache/fastddpm"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelConfig:
    """The U-Net; fields below `time_embedding_dim` go beyond the paper."""

    block_out_channels: tuple[int, ...] = (64, 128, 256)
    """one width a level, the last is the bottleneck"""
    norm_type: Literal["batch", "group"] = "batch"
    """the paper: batch for MNIST, group for CelebA"""
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


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SchedulerConfig:
    """The diffusion process; the defaults are the paper's."""

    num_train_timesteps: int = 1000
    """length of the chain, T"""
    beta_start: float = 1e-4
    """first beta"""
    beta_end: float = 0.02
    """last beta"""
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    """from the first beta to the last"""
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    """what the U-Net predicts: the noise (the paper), the velocity, or x_0"""
    variance_type: Literal["fixed_small", "fixed_large"] = "fixed_small"
    """sigma_t^2 of the reverse step: the posterior variance (the paper's code), or beta_t"""
    clip_sample: bool = False
    """clip the predicted x_0 to [-1, 1] at every reverse step; the paper does not"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainConfig:
    """How long, how fast, in which precision."""

    num_images_seen: int = 200_000
    """length of the run in images, rounded up to whole batches"""
    batch_size: int = 64
    """global: the images of one optimizer step over all processes"""
    micro_batch_size: int | None = None
    """images of one forward pass, divides batch_size; null: batch_size / number of processes"""
    learning_rate: float = 1e-3
    """peak of the schedule"""
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    """after the warm-up"""
    lr_warmup_steps: int = 0
    """optimizer steps from 0 to the peak"""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """of AdamW"""
    weight_decay: float = 0.0
    """of AdamW"""
    max_grad_norm: float | None = 1.0
    """gradients are scaled down to this norm; null: never"""
    ema_decay: float = 0.999
    """of the weights that are saved; warmed up as min(decay, (1 + n) / (10 + n)); 0: no averaging"""
    timestep_sampling: Literal["uniform", "stratified"] = "uniform"
    """one t an image, independent (the paper), or one from each of batch_size equally likely strata"""
    timestep_focus: tuple[float, float, float] | None = None
    """center, width, share: this share of the timesteps falls in a normal bump at center * T, width * T wide"""
    min_snr_gamma: float | None = None
    """weigh the loss by min(SNR, gamma) (Hang et al. 2023); null: the paper's plain loss"""
    label_dropout: float = 0.1
    """share of labels replaced by the null class, for class-conditional models"""
    horizontal_flip: bool = False
    """mirror each image with probability 1/2"""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """auto: bf16 where the device computes it, else no"""
    compile: bool = False
    """torch.compile the U-Net"""
    num_processes: int | None = None
    """refuse to start with another number of processes; null: take what the launcher gives"""
    num_threads: int | None = None
    """CPU threads of a process; null: this machine's cores, shared among its processes"""
    log_every: int = 50
    """optimizer steps between rows of metrics.jsonl"""
    evaluate_every: int = 0
    """optimizer steps between held-out losses (keyed noise, comparable); 0: only at the end"""
    preview_every: int = 0
    """optimizer steps between previews; 0: none"""
    checkpoint_every: int = 1000
    """optimizer steps between checkpoints; 0: only the last"""
    keep_checkpoints: int = 2
    """the newest checkpoints that stay"""
    resume: Literal["auto", "never"] = "auto"
    """auto: go on from the run folder's newest whole checkpoint; never: refuse a folder that has one"""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SampleConfig:
    """The pictures drawn at the end of a run and as previews."""

    num_images: int = 64
    """in samples.png and in a preview"""
    num_inference_steps: int = 100
    """reverse steps for samples.png and denoising.png"""
    seed: int = 0
    """image i is drawn from seed + i"""
    micro_batch_size: int = 64
    """images of one forward pass"""


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

    def __post_init__(self) -> None:
        _check_counts(self)
        train = self.train
        micro = train.micro_batch_size
        if micro is not None and train.batch_size % micro:
            below = train.batch_size // micro * micro
            ways = " or ".join(str(n) for n in (below, below + micro) if n > 0)
            raise ValueError(
                f"train.batch_size ({train.batch_size}) must be a multiple of train.micro_batch_size ({micro}); "
                f"use --train.batch_size {ways}"
            )


_AT_LEAST_ONE = (
    "train.micro_batch_size",
    "train.num_images_seen", "train.batch_size", "train.log_every", "train.keep_checkpoints",
    "sample.num_images", "sample.num_inference_steps", "sample.micro_batch_size",
    "scheduler.num_train_timesteps", "data.num_images", "data.image_size", "train.num_processes", "train.num_threads",
    "model.patch_size", "model.norm_num_groups", "model.attention_head_dim",
)  # fmt: skip
_AT_LEAST_ZERO = (
    "seed", "sample.seed", "data.num_held_out", "data.max_bad_files", "train.lr_warmup_steps", "train.weight_decay",
    "train.evaluate_every", "train.preview_every", "train.checkpoint_every", "train.learning_rate",
)  # fmt: skip
_POSITIVE = ("train.max_grad_norm", "train.min_snr_gamma")
_SHARES = ("train.ema_decay", "train.label_dropout")


def _check_counts(config: RunConfig) -> None:
    for name in _AT_LEAST_ONE:
        value = value_of(config, name)
        if value is not None and value < 1:
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
    for name in _SHARES:
        if not 0 <= value_of(config, name) < 1:
            raise ValueError(f"{name} is {value_of(config, name)}; it must be at least 0 and below 1")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `3e-3` as text, `no` as false and `2026-11-23` as a date; people mean number, word and name."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own interface
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_config(path: str | Path | None, overrides: Mapping[str, str] | None = None) -> RunConfig:
    """Read one experiment.

    Args:
        path: a YAML file, or the name of a packaged one (`quickstart`); None: overrides only.
        overrides: dotted field names to YAML text, such as {"train.batch_size": "96"}; they win over the file.
    Raises: ValueError: unknown key (with the nearest right name), wrong type, or values that do not fit together.
    """
    values: dict[str, Any] = {}
    if path is not None:
        found = find_config(path)
        values = _read_yaml(found)
        values.setdefault("output_dir", f"runs/{found.stem}")
    for name, text in (overrides or {}).items():
        *sections, field = name.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ValueError(f"--{name}: {section} is no section; {_near(name)}")
        place[field] = yaml.load(text, Loader=_Loader)
    return config_from_dict(values)


def config_from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The checked `RunConfig` of nested plain values, as they stand in YAML or JSON."""
    try:
        return TypeAdapter(RunConfig).validate_json(json.dumps(values))
    except ValidationError as error:
        raise ValueError("; ".join(_explain(e) for e in error.errors(include_url=False))) from None


def find_config(path: str | Path) -> Path:
    """The file at `path`, or the packaged config of that name."""
    given = Path(path)
    if given.is_file():
        return given
    packaged = Path(str(files("fastddpm") / "configs"))
    if (packaged / f"{given.name.removesuffix('.yaml')}.yaml").is_file():
        return packaged / f"{given.name.removesuffix('.yaml')}.yaml"
    names = ", ".join(sorted(p.stem for p in packaged.glob("*.yaml")))
    raise ValueError(f"no config {str(path)!r}: give the path of a YAML file, or one of the packaged names: {names}")


def to_yaml(config: RunConfig) -> str:
    """Every value of a config, written out; `load_config` reads it back."""
    return yaml.safe_dump(json.loads(json.dumps(asdict(config))), sort_keys=False)


def field_names() -> list[str]:
    """The dotted name of every field, in order."""
    return [name for name, _, _ in walk_fields()]


def walk_fields(owner: Any = RunConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo, str]]:
    """(dotted name, field, type as text) of every setting."""
    hints = get_type_hints(owner)
    for name, field in owner.__pydantic_fields__.items():
        if is_dataclass(hints[name]):
            yield from walk_fields(hints[name], f"{prefix}{name}.")
        else:
            yield prefix + name, field, _type_text(hints[name])


def help_text() -> str:
    """One line a setting: name, type, default, meaning."""
    lines = []
    for name, field, kind in walk_fields():
        shown = "required" if field.is_required() else _plain(field.default)
        lines.append(f"  --{name}  {kind} = {shown}\n        {field.description}")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return (
        yaml.safe_dump(json.loads(json.dumps(value)), default_flow_style=True).removesuffix("\n").removesuffix("\n...")
    )


def _type_text(kind: Any) -> str:
    if kind is NoneType:
        return "null"
    if get_origin(kind) is Literal:
        return " | ".join(repr(choice) for choice in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(_type_text(choice) for choice in get_args(kind))
    return kind.__name__ if not get_args(kind) else str(kind)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(), Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {type(values).__name__}, wanted settings such as 'train: {{batch_size: 64}}'")
    return values


def _near(name: str) -> str:
    names: Sequence[str] = [*field_names(), *(f.name for f in fields(RunConfig))]
    by_last = {n.rpartition(".")[2]: n for n in names}
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not close:
        close = [by_last[n] for n in difflib.get_close_matches(name.rpartition(".")[2], list(by_last), n=1, cutoff=0.6)]
    return f"did you mean {close[0]}?" if close else "see --help for the names"


def _explain(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"] if not isinstance(part, int) and part not in _UNION_TAGS)
    if error["type"] == "unexpected_keyword_argument":
        return f"unknown setting {name}: {_near(name)}"
    if error["type"] in ("missing", "missing_argument"):
        return f"{name} is missing: set it in the config or as --{name}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    kinds = {n: kind for n, _, kind in walk_fields()}
    wanted = kinds.get(name, "a section of settings")
    return f"{name} is {error['input']!r} ({type(error['input']).__name__}); wanted {wanted}"


_UNION_TAGS = ("int", "float", "str", "bool", "literal[1,3]")


HARMLESS = (
    "output_dir", "data.cache_dir", "data.on_bad_file", "data.max_bad_files", "train.num_images_seen",
    "train.num_processes", "train.num_threads", "train.log_every", "train.evaluate_every", "train.preview_every",
    "train.checkpoint_every", "train.keep_checkpoints", "train.resume", "train.compile",
)  # fmt: skip
"""settings that may change when a run goes on, beside all of `sample`"""


def differences(old: RunConfig, new: RunConfig) -> list[tuple[str, Any, Any, bool]]:
    """(dotted name, old value, new value, whether a run may go on with it) of each setting that differs."""
    found = []
    for name in field_names():
        before, after = value_of(old, name), value_of(new, name)
        if before != after:
            found.append((name, before, after, name in HARMLESS or name.startswith("sample.")))
    return found


def value_of(config: RunConfig, name: str) -> Any:
    """The value of a dotted field name."""
    section, _, field = name.rpartition(".")
    return getattr(getattr(config, section) if section else config, field)
