"""The network of a run: built from its settings, or from given weights."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from accelerate import PartialState

from fastddpm.config import ModelConfig, RunConfig, check_architecture
from fastddpm.data import NUM_AMOUNTS, Splits
from fastddpm.pipelines.saved_parts import ARCHITECTURES
from fastddpm.process import counted, say
from fastddpm.schedulers.fused_ddpm import FusedDDPMScheduler
from fastddpm.training.given_weights import UNet, label_names_of, load_source

_OF_CLASSES = "class_embedding."


def build_unet(config: RunConfig, splits: Splits, resumed_from: Mapping[str, Any] | None = None) -> UNet:
    """The U-Net of a config for some images.

    Args:
        resumed_from: the network's own config in a checkpoint; with it, `init_from` is not looked at again.
    Returns: weights that depend on the run's seed alone, or those of `model.init_from`.
    Raises: ValueError: settings that do not fit the images, or weights that do not fit the settings.
    """
    num_classes = splits.train.num_classes
    if config.model.class_conditional and num_classes is None:
        why = splits.train.source.facts["no_labels"]
        raise ValueError(
            f"model.class_conditional needs labelled images and these have none{f' ({why})' if why else ''}; "
            "use false (and --sample.guidance_scale 1)"
        )
    for_images = _options_of_images(config, input_shape(config, splits.train.image_shape), num_classes)
    if resumed_from is not None:
        return _from_options(resumed_from["_class_name"], resumed_from, config.seed)
    if config.model.init_from is not None:
        source = load_source(config.model.init_from)
        check_architecture(config.model, type(source).__name__)
        levels = config.model.block_out_channels
        if levels == ModelConfig().block_out_channels:
            levels = tuple(source.config.block_out_channels)
        patch_size = source.config.get("patch_size") or 1
        check_sides(config, type(source).__name__, levels, patch_size, for_images["sample_size"])
        _check_channels(config, source.config.in_channels, for_images["in_channels"])
        names = splits.train.source.label_names if config.model.class_conditional else None
        wanted = {**_given_options(config.model, source, levels), **for_images}
        return _take_weights(source, {**wanted, **_of_augmentation(config, type(source).__name__)}, config, names)
    return _build(config, for_images)


def _build(config: RunConfig, for_images: Mapping[str, Any]) -> UNet:
    model = config.model
    check_sides(config, model.architecture, model.block_out_channels, model.patch_size, for_images["sample_size"])
    options = {**_options(model, model.architecture, model.block_out_channels), **for_images}
    return _from_options(model.architecture, {**options, **_of_augmentation(config, model.architecture)}, config.seed)


def _of_augmentation(config: RunConfig, architecture: str) -> dict[str, int]:
    """The paper's network is told how its images were augmented; diffusers' own has no place for it."""
    return {"augment_dim": NUM_AMOUNTS * config.data.augment.is_on} if architecture == "PaperUNet2DModel" else {}


def check_network(config: RunConfig) -> None:
    """Try the network of a config without storage, before any image is read; in the size that it will see, if known.

    Raises: ValueError: settings that do not fit together, or not these images.
    """
    if config.model.init_from is not None:  # whose architecture is known when its weights are there
        return
    data, cropped = config.data, config.train.random_crop
    stored = data.size or (data.center_crop and (data.center_crop, data.center_crop))
    shape: tuple[int, int, int] = (data.channels or 3, *(stored or (cropped or 0, cropped or 0)))
    if stored:
        shape = input_shape(config, shape)
    with torch.device("meta"), torch.inference_mode():
        unet = _build(config, _options_of_images(config, shape, num_classes=1)).eval()
        if shape[1]:
            labels = None if unet.config.num_class_embeds is None else torch.zeros(1, dtype=torch.int64)
            unet(torch.empty(1, *shape), 0, class_labels=labels)


def build_scheduler(config: RunConfig) -> FusedDDPMScheduler:
    """The scheduler of a config, every value written out."""
    return FusedDDPMScheduler(**asdict(config.scheduler))


def from_config(options: Mapping[str, Any]) -> UNet:
    """A network as its config describes it, `_class_name` included."""
    return _from_options(options["_class_name"], options, seed=0)


def null_class_of(unet: UNet) -> int | None:
    """The class that stands for "any" in a network that was built here; None: it knows no classes."""
    return None if unet.config.num_class_embeds is None else unet.config.num_class_embeds - 1


def tells_augmentation(unet: UNet) -> bool:
    """True if a network takes `augment_labels`."""
    return bool(unet.config.get("augment_dim"))


def input_shape(config: RunConfig, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(C, H, W) of what the network sees of images of some shape: all of them, or crops.

    Raises: ValueError: `train.random_crop` leaves nothing to draw.
    """
    channels, height, width = image_shape
    side = config.train.random_crop
    if side is None:
        return channels, height, width
    if side > min(height, width) or side == height == width:
        raise ValueError(
            f"train.random_crop is {side} and the images are {height}x{width}; use a smaller one, store larger images "
            f"(--data.image_size above {side}), or leave it out"
        )
    return channels, side, side


def _options_of_images(config: RunConfig, shape: tuple[int, int, int], num_classes: int | None) -> dict[str, Any]:
    model, (channels, height, width) = config.model, shape
    return {
        "sample_size": height if height == width else (height, width),
        "in_channels": channels,
        "out_channels": channels,
        "num_class_embeds": num_classes + 1 if model.class_conditional and num_classes else None,
    }


def _options(model: ModelConfig, architecture: str, levels: tuple[int, ...]) -> dict[str, Any]:
    """Settings as the arguments of a network's class; `levels`: their widths."""
    shared = {
        "block_out_channels": levels,
        "norm_num_groups": model.norm_num_groups,
        "attention_head_dim": model.attention_head_dim,
    }
    if architecture == "PaperUNet2DModel":
        names = ("norm_type", "time_embedding_dim", "block_type", "attention_levels", "patch_size")
        return {**shared, **{name: getattr(model, name) for name in names}}
    attends = [level in model.attention_levels for level in range(len(levels))]
    return {
        **shared,
        "layers_per_block": model.layers_per_block,
        "down_block_types": tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attends),
        "up_block_types": tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends)),
        "add_attention": any(attends),
    }


def _given_options(model: ModelConfig, source: UNet, levels: tuple[int, ...]) -> dict[str, Any]:
    """Settings as arguments, those that someone asked for: not at their defaults."""
    name = type(source).__name__
    given, defaults = _options(model, name, levels), _options(ModelConfig(), name, levels)
    asked = {key: value for key, value in given.items() if value != defaults[key]}
    if levels != tuple(source.config.block_out_channels):
        asked["block_out_channels"] = levels
    return asked


def _from_options(architecture: str, options: Mapping[str, Any], seed: int) -> UNet:
    groups, widths = options.get("norm_num_groups", 1), options.get("block_out_channels", ())
    if options.get("norm_type", "group") == "group" and any(width % groups for width in widths):
        raise ValueError(f"model.norm_num_groups ({groups}) must divide every one of model.block_out_channels {widths}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's: the network is built there
        return ARCHITECTURES[architecture].from_config(dict(options))


def check_sides(
    config: RunConfig, architecture: str, levels: tuple[int, ...], patch_size: int, sample_size: int | tuple[int, int]
) -> None:
    """Raises: ValueError: images that the levels cannot halve; names the nearest size that they can, and its setting.

    Args:
        sample_size: height and width of what the network sees; 0: not known yet.
    """
    sides = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    halved = 2 ** (len(levels) - 1)
    step, least = (halved, halved) if architecture == "UNet2DModel" else (patch_size, patch_size * halved)
    nearest = [max(least, step * round(side / step)) for side in sides]  # PaperUNet2DModel takes odd sizes
    if not any(sides) or list(sides) == nearest:
        return
    setting = "data.image_size" if config.train.random_crop is None else "train.random_crop"
    size = str(nearest[0]) if nearest[0] == nearest[1] else f"'{nearest}'"
    multiples = f" that are multiples of {step}" if step > 1 else ""
    raise ValueError(
        f"images are {sides[0]}x{sides[1]} (height x width); {architecture} with {len(levels)} levels needs sides of "
        f"at least {least}{multiples}; the nearest is --{setting} {size}, or use fewer model.block_out_channels"
    )


def _check_channels(config: RunConfig, there: int, here: int) -> None:
    if there != here:
        way = f"use --data.channels {there}" if there in (1, 3) else "choose other weights"
        raise ValueError(
            f"model.init_from {config.model.init_from} is of images with {counted(there, 'channel')}, and these have "
            f"{here}; {way}"
        )


def _own_classes(source: UNet, need: Mapping[str, torch.Tensor], config: RunConfig, names: Any) -> set[str]:
    """Tensors that begin anew, or are left, since they are of other classes than the run's; says so."""
    theirs = label_names_of(str(config.model.init_from))
    have = {name: tensor for name, tensor in source.state_dict().items() if name.startswith(_OF_CLASSES)}
    mine = {name: tensor for name, tensor in need.items() if name.startswith(_OF_CLASSES)}
    is_same = {name: _shape(tensor) for name, tensor in have.items()} == {name: _shape(t) for name, t in mine.items()}
    if is_same and (not mine or theirs is None or list(theirs) == list(names or ())):
        return set()
    said = "begins anew, since its weights are of other classes" if mine else "is left out: the run learns no classes"
    say(PartialState(), f"model.init_from {config.model.init_from}: the class embedding {said}; all else is taken")
    return have.keys() | mine.keys()


def _take_weights(source: UNet, wanted: Mapping[str, Any], config: RunConfig, names: Any) -> UNet:
    """A network like `source`, but as this run wants it, with its weights, bit for bit; without those of other classes.

    Args:
        names: of the run's classes; None: it learns none.
    """
    kept = {name: value for name, value in source.config.items() if not name.startswith("_")}
    if "dropout" in kept:
        kept["dropout"] = 0.0  # it would draw numbers that no key decides
    unet = _from_options(type(source).__name__, {**kept, **wanted}, config.seed)
    need, of_augmentation = unet.state_dict(), "augment_embedding."  # zeros at first; of no use where nothing is told
    have = {name: tensor for name, tensor in need.items() if name.startswith(of_augmentation)}
    have |= {n: tensor for n, tensor in source.state_dict().items() if n in need or not n.startswith(of_augmentation)}
    for name in _own_classes(source, need, config, names):
        have.pop(name, None)
        have |= {name: need[name]} if name in need else {}
    wrong = sorted(
        f"{name} is {_shape(have.get(name))} there, {_shape(need.get(name))} here"
        for name in have.keys() | need.keys()
        if _shape(have.get(name)) != _shape(need.get(name))
    )
    if wrong:
        settings = sorted(
            f"{name} is {source.config.get(name)!r} there, {value!r} here"
            for name, value in wanted.items()
            if _plain(source.config.get(name)) != _plain(value) and name != "sample_size"
        )
        raise ValueError(
            f"model.init_from {config.model.init_from}: {len(wrong)} tensors do not fit: {'; '.join(wrong[:4])}; "
            f"because {' and '.join(settings)}: leave these settings to the weights, or choose other images or weights"
        )
    unet.load_state_dict(have)
    return unet


def _shape(tensor: torch.Tensor | None) -> str:
    return "missing" if tensor is None else "x".join(str(n) for n in tensor.shape) or "a number"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def dtype_of(mixed_precision: str) -> torch.dtype:
    """Dtype that the layers of a network compute in under Accelerate's `mixed_precision`."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(mixed_precision, torch.float32)
