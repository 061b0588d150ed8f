"""The paper's U-Net (its figure 2 and listing) as a diffusers model.

This file travels with the weights (a saved run carries a copy of it), so it imports torch and diffusers only.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn


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
        h = x + self.position_mlp(position)[:, :, None, None]
        h = F.gelu(self.norm1(self.conv1(h)))
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


class SelfAttention(nn.Module):
    """An option beyond the paper: residual multi-head attention over the positions of a feature map."""

    def __init__(self, channels: int, head_dim: int, norm_type: str, num_groups: int):
        super().__init__()
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
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, H * W, head_dim)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)  # (B, H * W, heads, head_dim)
        h = self.to_out(h.reshape(batch, height * width, channels)).transpose(1, 2)  # (B, C, H * W)
        return x + h.reshape(batch, channels, height, width)


class PaperUNet2DModel(ModelMixin, ConfigMixin):
    """The paper's small U-Net: a block a level, skips by concatenation, no residual connection by default.

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
    Raises: ValueError: a setting above is not met.
    """

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
    ):
        super().__init__()
        widths = list(block_out_channels)
        _check_settings(
            widths, norm_type, norm_num_groups, time_embedding_dim, block_type, attention_levels, attention_head_dim
        )
        levels = range(len(widths))
        norm = (norm_type, norm_num_groups)
        block = PaperBlock if block_type == "paper" else ResidualBlock
        patch_area = patch_size**2
        ins = [in_channels * patch_area, *widths[:-1]]
        if block_type == "residual":  # its first operation is a norm, which needs channels to normalize
            self.conv_in: nn.Module = nn.Conv2d(ins[0], widths[0], 3, padding=1)
            ins[0] = widths[0]
        else:
            self.conv_in = nn.Identity()

        def attention(level: int) -> nn.Module:
            used = level in attention_levels
            return SelfAttention(widths[level], attention_head_dim, *norm) if used else nn.Identity()

        self.down_blocks = nn.ModuleList([block(ins[i], widths[i], time_embedding_dim, *norm) for i in levels])
        self.down_attentions = nn.ModuleList([attention(i) for i in levels])
        self.upsamplers = nn.ModuleList(
            [nn.ConvTranspose2d(widths[i + 1], widths[i], 2, stride=2) for i in levels[:-1]]
        )
        self.up_blocks = nn.ModuleList(
            [block(2 * widths[i], widths[i], time_embedding_dim, *norm) for i in levels[:-1]]
        )
        self.up_attentions = nn.ModuleList([attention(i) for i in levels[:-1]])
        self.conv_out = nn.Conv2d(widths[0], out_channels * patch_area, 1)
        self.class_embedding = nn.Embedding(num_class_embeds, time_embedding_dim) if num_class_embeds else None

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> PaperUNet2DOutput | tuple[Tensor]:
        """Predict the target (the noise, for `prediction_type="epsilon"`) from x_t.

        Args:
            sample: x_t, (B, in_channels, H, W), the model's dtype.
            timestep: t, a number, a 0-d or a (B,) tensor of any integer dtype.
            class_labels: (B,), int64; None: the null class of a class-conditional model.
            return_dict: a `PaperUNet2DOutput`, or a tuple of its one member.
        Returns: the prediction, (B, out_channels, H, W), the dtype of `sample`.
        Raises: ValueError: height or width is too small for the levels, or no multiple of `patch_size`; class labels
            for an unconditional model.
        """
        self._check_input(sample, class_labels)
        position = self._embed_position(sample, timestep, class_labels)  # (B, d)
        h = F.pixel_unshuffle(sample, self.config.patch_size) if self.config.patch_size > 1 else sample
        h = self.conv_in(h)
        skips: list[Tensor] = []
        for level, (block, attention) in enumerate(zip(self.down_blocks, self.down_attentions, strict=True)):
            h = attention(block(F.max_pool2d(h, 2) if level > 0 else h, position))
            skips.append(h)
        h = skips.pop()
        for level in reversed(range(len(skips))):
            h = self.upsamplers[level](h, output_size=skips[level].shape[-2:])
            h = self.up_blocks[level](torch.cat([skips[level], h], dim=1), position)
            h = self.up_attentions[level](h)
        h = self.conv_out(h)
        h = F.pixel_shuffle(h, self.config.patch_size) if self.config.patch_size > 1 else h
        return PaperUNet2DOutput(sample=h) if return_dict else (h,)

    def _embed_position(self, sample: Tensor, timestep: Tensor | float | int, class_labels: Tensor | None) -> Tensor:
        batch = sample.shape[0]
        timesteps = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(batch)
        position = position_encoding(timesteps, self.config.time_embedding_dim).to(sample.dtype)
        if self.class_embedding is None:
            return position
        if class_labels is None:
            null_class = self.config.num_class_embeds - 1
            class_labels = torch.full((batch,), null_class, dtype=torch.int64, device=sample.device)
        return position + self.class_embedding(class_labels).to(sample.dtype)

    def _check_input(self, sample: Tensor, class_labels: Tensor | None) -> None:
        smallest = self.config.patch_size * 2 ** (len(self.config.block_out_channels) - 1)
        height, width = sample.shape[-2:]
        if min(height, width) < smallest or height % self.config.patch_size or width % self.config.patch_size:
            raise ValueError(
                f"sample is {height}x{width}; {len(self.config.block_out_channels)} levels and patch_size "
                f"{self.config.patch_size} need sides of at least {smallest} that are multiples of "
                f"{self.config.patch_size}: resize the images or use fewer levels"
            )
        if class_labels is not None and self.class_embedding is None:
            raise ValueError("got class_labels, but the model has num_class_embeds=None: leave class_labels out")


def _check_settings(
    widths: list[int],
    norm_type: str,
    num_groups: int,
    embedding_dim: int,
    block_type: str,
    attention_levels: tuple[int, ...],
    head_dim: int,
) -> None:
    if not widths:
        raise ValueError("block_out_channels is empty; give one width a level, such as (64, 128, 256)")
    if norm_type not in ("batch", "group"):
        raise ValueError(f"norm_type {norm_type!r}; use 'batch' or 'group'")
    if block_type not in ("paper", "residual"):
        raise ValueError(f"block_type {block_type!r}; use 'paper' or 'residual'")
    if norm_type == "group" and any(width % num_groups for width in widths):
        raise ValueError(f"norm_num_groups ({num_groups}) must divide every one of block_out_channels {tuple(widths)}")
    if embedding_dim % 2:
        raise ValueError(f"time_embedding_dim ({embedding_dim}) must be even: half its columns are sin, half cos")
    for level in attention_levels:
        if not 0 <= level < len(widths) or widths[level] % head_dim:
            raise ValueError(
                f"attention_levels has {level}: it must index block_out_channels {tuple(widths)}, at a width that is "
                f"a multiple of attention_head_dim ({head_dim})"
            )
