"""The paper's U-Net (its figure 2 and listing) as a diffusers model.

This file travels with the weights (a saved run carries a copy of it), so it imports torch and diffusers only.
"""

import itertools
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

logger = logging.getLogger(__name__)


@dataclass
class PaperUNet2DOutput(BaseOutput):
    """Output of `PaperUNet2DModel`: `sample`, (B, out_channels, H, W), the prediction for `timestep`."""

    sample: Tensor


def position_encoding(timesteps: Tensor, dim: int) -> Tensor:
    """Interleaved sinusoids of the diffusion position: even columns sin, odd columns cos.  (the paper's Eq. 5)

    Args:
        timesteps: (B,), any integer or float dtype.
        dim: d, number of columns, even.
    Returns: (B, dim), float32; column 2i is sin(t / 10000^(2i/d)), column 2i + 1 is cos of the same angle.
    """
    exponent = torch.arange(0, dim, 2, dtype=torch.float32, device=timesteps.device) / dim
    angle = timesteps.float()[:, None] / 10000.0**exponent  # (B, d/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # (B, d)


def _norm(norm_type: str, num_groups: int, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm_type == "batch" else nn.GroupNorm(num_groups, channels)


def _position_mlp(embedding_dim: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(embedding_dim, channels), nn.ReLU(), nn.Linear(channels, channels))


class PaperBlock(nn.Module):
    """The listing's "Convolution": add the embedded position to the input, then twice conv3x3 -> norm -> GELU."""

    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int, norm_type: str, num_groups: int):
        super().__init__()
        self.position_mlp = _position_mlp(embedding_dim, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm1 = _norm(norm_type, num_groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(norm_type, num_groups, out_channels)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        h = F.gelu(self.norm1(self.conv1(x + self.position_mlp(position)[:, :, None, None])))
        return F.gelu(self.norm2(self.conv2(h)))


class ResidualBlock(nn.Module):
    """An option beyond the paper: norm -> GELU -> conv3x3 twice, scaled and shifted by the position, plus a shortcut.

    The second convolution starts at zero, so that the block starts as its shortcut.  (Dhariwal & Nichol 2021, App. A)
    """

    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int, norm_type: str, num_groups: int):
        super().__init__()
        self.position_mlp = _position_mlp(embedding_dim, 2 * out_channels)
        self.norm1 = _norm(norm_type, num_groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(norm_type, num_groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]
        same = in_channels == out_channels
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        scale, shift = self.position_mlp(position)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.gelu(self.norm1(x)))
        h = self.conv2(F.gelu(self.norm2(h) * (1 + scale) + shift))
        return self.shortcut(x) + h


class DispatchedAttention:
    """Attention itself, by the backend that `set_attention_backend` chose; None: torch's, or the process's."""

    _attention_backend = None
    _parallel_config = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend: q, k, v and the result are (B, tokens, heads, head_dim)."""
        return dispatch_attention_fn(q, k, v, backend=self._attention_backend)


class SelfAttention(nn.Module, AttentionModuleMixin):
    """An option beyond the paper: residual multi-head attention over the positions of a feature map."""

    _default_processor_cls = DispatchedAttention
    _available_processors = [DispatchedAttention]  # noqa: RUF012 - diffusers' own interface
    _supports_qkv_fusion = False  # it is fused
    processor: DispatchedAttention
    set_processor: Callable[..., None]  # these three are the mixin's, which has no types
    set_attention_backend: Callable[..., None]
    set_use_memory_efficient_attention_xformers: Callable[..., None]

    def __init__(self, channels: int, head_dim: int, norm_type: str, num_groups: int):
        super().__init__()
        self.set_processor(DispatchedAttention())
        self.num_heads = channels // head_dim
        self.norm = _norm(norm_type, num_groups, channels)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(self.to_out.bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, H * W, C): a view, under channels_last
        qkv = self.to_qkv(tokens).reshape(batch, height * width, 3, self.num_heads, -1)
        h = self.processor(*qkv.unbind(2))  # (B, H * W, heads, head_dim)
        h = self.to_out(h.reshape(batch, height * width, channels)).transpose(1, 2)  # (B, C, H * W)
        return x + h.reshape(batch, channels, height, width)


class PaperUNet2DModel(ModelMixin, ConfigMixin):
    """The paper's small U-Net: one block per level, skips by concatenation, no residual connection by default.

    With three levels and channels (c2, c3, c4) its layers are those of the listing: `c1 -> c2`, `c2 -> c3`,
    `c3 -> c4 -> c3`, `c3 + c3 -> c3 -> c2`, `c2 + c2 -> c2 -> image`. Halving is a 2x2 max-pool and doubling a 2x2
    transposed convolution to the skip's size (our choice: the paper gives neither). Options after
    `time_embedding_dim` go beyond the paper and are off by default.

    Args:
        sample_size: height and width of the images the model is for; recorded for pipelines, not enforced.
        in_channels: channels of the noisy image.
        out_channels: channels of the prediction.
        block_out_channels: one entry a level, the last is the bottleneck.
        norm_type: "batch" (the paper's for MNIST) or "group" (its for CelebA).
        norm_num_groups: groups of GroupNorm; must divide every entry of `block_out_channels`.
        time_embedding_dim: d of Eq. 5, even.
        num_class_embeds: number of classes and one null class, which is the last index; None: unconditional.
        block_type: "paper", or "residual" (`ResidualBlock`).
        attention_levels: indices into `block_out_channels` of levels whose blocks are followed by `SelfAttention`.
        attention_head_dim: channels of an attention head.
        patch_size: the U-Net works on patches of this many pixels a side (space to depth); 1: on pixels.
        augment_dim: numbers that say how an image was augmented (Karras et al. 2022, App. F.2); 0: it is not told.
    Raises: ValueError: a setting above is not met.
    """

    _supports_gradient_checkpointing = True
    _gradient_checkpointing_func: Callable[..., Tensor]
    _no_split_modules = ["PaperBlock", "ResidualBlock", "SelfAttention"]  # noqa: RUF012 - diffusers' own interface
    _repeated_blocks = ["PaperBlock", "ResidualBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["norm"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,
        in_channels: int = 1,
        out_channels: int = 1,
        block_out_channels: tuple[int, ...] = (64, 128, 256),
        norm_type: Literal["batch", "group"] = "batch",
        norm_num_groups: int = 32,
        time_embedding_dim: int = 100,
        num_class_embeds: int | None = None,
        block_type: Literal["paper", "residual"] = "paper",
        attention_levels: tuple[int, ...] = (),
        attention_head_dim: int = 32,
        patch_size: int = 1,
        augment_dim: int = 0,
    ):
        super().__init__()
        widths = list(block_out_channels)
        _check_settings(self.config)
        levels, inner, norm = range(len(widths)), range(len(widths) - 1), (norm_type, norm_num_groups)
        block, patch_area = PaperBlock if block_type == "paper" else ResidualBlock, patch_size**2
        ins = [in_channels * patch_area, *widths[:-1]]
        self.conv_in: nn.Module = nn.Identity()
        if block_type == "residual":  # its first operation is a norm, which needs channels to normalize
            self.conv_in, ins[0] = nn.Conv2d(ins[0], widths[0], 3, padding=1), widths[0]

        def attention(level: int) -> nn.Module:
            used = level in attention_levels
            return SelfAttention(widths[level], attention_head_dim, *norm) if used else nn.Identity()

        self.down_blocks = nn.ModuleList([block(ins[i], widths[i], time_embedding_dim, *norm) for i in levels])
        self.down_attentions = nn.ModuleList([attention(i) for i in levels])
        self.upsamplers = nn.ModuleList([nn.ConvTranspose2d(widths[i + 1], widths[i], 2, stride=2) for i in inner])
        self.up_blocks = nn.ModuleList([block(2 * widths[i], widths[i], time_embedding_dim, *norm) for i in inner])
        self.up_attentions = nn.ModuleList([attention(i) for i in inner])
        self.conv_out = nn.Conv2d(widths[0], out_channels * patch_area, 1)
        self.class_embedding = nn.Embedding(num_class_embeds, time_embedding_dim) if num_class_embeds else None
        self.augment_embedding = nn.Linear(augment_dim, time_embedding_dim, bias=False) if augment_dim else None
        if self.augment_embedding is not None:
            nn.init.zeros_(self.augment_embedding.weight)
        self.gradient_checkpointing = False

    @property
    def null_class(self) -> int | None:
        """The class that stands for "any", the last one; None: the model knows no classes."""
        return None if self.config.num_class_embeds is None else self.config.num_class_embeds - 1

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
        augment_labels: Tensor | None = None,
    ) -> PaperUNet2DOutput | tuple[Tensor]:
        """Predict the target (the noise, for `prediction_type="epsilon"`) from x_t.

        Args:
            sample: x_t, (B, in_channels, H, W), the model's dtype.
            timestep: t, a number, a 0-d or a (B,) tensor of any integer dtype.
            class_labels: (B,), int64; None: the null class of a class-conditional model.
            return_dict: a `PaperUNet2DOutput`, or a tuple of its one member.
            augment_labels: (B, augment_dim), how images were augmented while training; None: not at all, all zeros.
        Returns: the prediction, (B, out_channels, H, W), the dtype of `sample`.
        Raises: ValueError: height or width is too small for the levels, or no multiple of `patch_size`; class labels
            for an unconditional model.
        """
        self._check_input(sample, class_labels)
        position = self._embed_position(sample, timestep, class_labels)  # (B, d)
        if augment_labels is not None and self.augment_embedding is not None:
            position = position + self.augment_embedding(augment_labels.to(position.dtype))
        h = self.conv_in(F.pixel_unshuffle(sample, self.config.patch_size) if self.config.patch_size > 1 else sample)
        skips: list[Tensor] = []
        for level, (block, attention) in enumerate(zip(self.down_blocks, self.down_attentions, strict=True)):
            h = attention(self._run(block, F.max_pool2d(h, 2) if level > 0 else h, position))
            skips.append(h)
        h = skips.pop()
        for level in reversed(range(len(skips))):
            h = self.upsamplers[level](h, output_size=skips[level].shape[-2:])
            h = self._run(self.up_blocks[level], torch.cat([skips[level], h], dim=1), position)
            h = self.up_attentions[level](h)
        h = self.conv_out(h)
        h = F.pixel_shuffle(h, self.config.patch_size) if self.config.patch_size > 1 else h
        return PaperUNet2DOutput(sample=h) if return_dict else (h,)

    def _run(self, block: nn.Module, x: Tensor, position: Tensor) -> Tensor:
        """A block, its activations kept or, with gradient checkpointing, computed again in the backward pass."""
        if not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return block(x, position)
        if torch.compiler.is_compiling():  # the compiler recomputes without side effects, and traces no counter
            return self._gradient_checkpointing_func(block, x, position)
        return self._gradient_checkpointing_func(_counting_once(block), x, position)

    def set_use_memory_efficient_attention_xformers(self, valid: bool, attention_op: Callable | None = None) -> None:
        """Switch every attention layer to xformers, or back to torch's; the log says how many there were.

        Raises: ValueError: the model has no attention layer, or no GPU is there; ModuleNotFoundError: no xformers.
        """
        layers = [module for module in self.modules() if isinstance(module, SelfAttention)]
        if valid and not layers:
            raise ValueError(
                "got enable_xformers_memory_efficient_attention() for a model without attention (attention_levels is "
                "empty): nothing would change; leave the call out, or train with attention_levels set"
            )
        for layer in layers:
            if valid:
                layer.set_use_memory_efficient_attention_xformers(True, attention_op)
            else:
                layer.set_attention_backend("native")
        logger.warning(f"{'xformers' if valid else 'torch'} computes attention from now on (layers: {len(layers)})")

    def save_config(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Save the config as diffusers does, with a copy of this file: beside it the weights load without the
        package."""
        super().save_config(save_directory, push_to_hub=push_to_hub, **kwargs)
        if Path(__file__) != (code := Path(save_directory) / "fastddpm.py"):
            shutil.copyfile(__file__, code)

    def _embed_position(self, sample: Tensor, timestep: Tensor | float | int, class_labels: Tensor | None) -> Tensor:
        batch, timesteps = sample.shape[0], torch.as_tensor(timestep, device=sample.device).reshape(-1)
        if timesteps.numel() not in (1, batch):
            raise ValueError(f"got {timesteps.numel()} timesteps for {batch} images; give one, or one an image")
        position = position_encoding(timesteps.expand(batch), self.config.time_embedding_dim).to(sample.dtype)
        if self.class_embedding is None or self.null_class is None:
            return position
        if class_labels is None:
            class_labels = torch.full((batch,), self.null_class, dtype=torch.int64, device=sample.device)
        return position + self.class_embedding(class_labels).to(sample.dtype)

    def _check_input(self, sample: Tensor, class_labels: Tensor | None) -> None:
        levels, patch, (height, width) = len(self.config.block_out_channels), self.config.patch_size, sample.shape[-2:]
        smallest = patch * 2 ** (levels - 1)
        if min(height, width) < smallest or height % patch or width % patch:
            raise ValueError(
                f"sample is {height}x{width}; {levels} levels and patch_size {patch} need sides of at least {smallest} "
                f"that are multiples of {patch}: resize the images or use fewer levels"
            )
        if class_labels is not None and self.class_embedding is None:
            raise ValueError("got class_labels, but the model has num_class_embeds=None: leave class_labels out")


# diffusers records the module of a pipeline's parts in model_index.json. There it must read "fastddpm", which is the
# package where it is installed, and the copy of this file beside the weights where it is not.
PaperUNet2DModel.__module__ = "fastddpm"


def _counting_once(block: nn.Module) -> Callable[..., Tensor]:
    """A block that gradient checkpointing calls twice: BatchNorm's running statistics follow the first call only."""
    calls, norms = itertools.count(), [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]

    def run(*inputs: Tensor) -> Tensor:
        if not next(calls):
            return block(*inputs)
        kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:  # the same operations as in the first pass, which checkpointing demands, that change nothing
            norm.momentum, norm.num_batches_tracked = 0.0, None
        try:
            return block(*inputs)
        finally:
            for norm, (momentum, count) in zip(norms, kept, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, count

    return run


def _check_settings(config: Any) -> None:
    widths, groups, head_dim = config.block_out_channels, config.norm_num_groups, config.attention_head_dim
    if not widths:
        raise ValueError("block_out_channels is empty; give one width a level, such as (64, 128, 256)")
    if config.norm_type not in ("batch", "group"):
        raise ValueError(f"norm_type {config.norm_type!r}; use 'batch' or 'group'")
    if config.block_type not in ("paper", "residual"):
        raise ValueError(f"block_type {config.block_type!r}; use 'paper' or 'residual'")
    if config.norm_type == "group" and any(width % groups for width in widths):
        raise ValueError(f"norm_num_groups ({groups}) must divide every one of block_out_channels {tuple(widths)}")
    if (dim := config.time_embedding_dim) % 2:
        raise ValueError(f"time_embedding_dim ({dim}) must be even: half its columns are sin, half cos")
    for level in config.attention_levels:
        if not 0 <= level < len(widths) or widths[level] % head_dim:
            raise ValueError(
                f"attention_levels has {level}: it must index block_out_channels {tuple(widths)}, at a width that is "
                f"a multiple of attention_head_dim ({head_dim})"
            )
