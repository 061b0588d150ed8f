"""Kernels that compute attention: torch's, xformers', or another of diffusers' backends."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend, dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastddpm.config.early_checks import check_installed
from fastddpm.models.paper_unet import SelfAttention


class DispatchedAttnProcessor:
    """Self-attention of `UNet2DModel` by any backend; its own processor knows torch's function only."""

    _parallel_config = None

    def __init__(self, backend: AttentionBackendName):
        self._attention_backend = backend

    def __call__(
        self, attn: Attention, hidden_states: Tensor, attention_mask: None = None, temb: Tensor | None = None, **_: Any
    ) -> Tensor:
        """Attend over the positions of a feature map: (B, C, H, W) in and out."""
        batch, channels, height, width = hidden_states.shape
        tokens = hidden_states.flatten(2)  # (B, C, H * W)
        if attn.group_norm is not None:
            tokens = attn.group_norm(tokens)
        tokens = tokens.transpose(1, 2)  # (B, H * W, C)
        heads = (batch, height * width, attn.heads, -1)
        q, k, v = (project(tokens).reshape(heads) for project in (attn.to_q, attn.to_k, attn.to_v))
        h = dispatch_attention_fn(q, k, v, backend=self._attention_backend).flatten(2)  # (B, H * W, C)
        h = attn.to_out[1](attn.to_out[0](h)).transpose(1, 2).reshape(batch, channels, height, width)
        return (h + hidden_states if attn.residual_connection else h) / attn.rescale_output_factor


def use_attention_backend(unet: nn.Module, backend: str, device: torch.device, dtype: torch.dtype) -> int:
    """Let every attention layer of a U-Net use a backend, which is tried once, forwards and backwards.

    Args:
        unet: a `PaperUNet2DModel` or a `UNet2DModel`.
        backend: a name that diffusers knows, such as "xformers", "flash" or "flex".
        device, dtype: what the layers will compute on and in.
    Returns: the number of layers.
    Raises: ValueError: unknown, downloads code, cannot run here, or the network has no attention.
    """
    layers = [m for m in unet.modules() if isinstance(m, Attention if isinstance(unet, UNet2DModel) else SelfAttention)]
    if not layers:
        raise ValueError(
            f"model.attention_backend is {backend!r}, but the network has no attention; leave it out, or set "
            "model.attention_levels"
        )
    known = sorted(name.value for name in AttentionBackendName if not name.value.endswith("_hub"))
    if backend not in known:
        raise ValueError(
            f"model.attention_backend is {backend!r}; wanted null or one of {', '.join(known)} (those that end in _hub "
            "run code from the Hub, and are not offered)"
        )
    if backend == "xformers":
        check_installed("model.attention_backend xformers", backend, backend, ", or use null, torch's own")
    chosen = AttentionBackendName(backend)
    layer: Any = layers[0]
    is_own = isinstance(layer, SelfAttention)
    heads, width = (layer.num_heads, layer.to_qkv.in_features) if is_own else (layer.heads, layer.to_q.out_features)
    shape = 2, 16, heads, width // heads
    try:
        with attention_backend(chosen), torch.enable_grad():
            q, k, v = (torch.randn(shape, device=device, dtype=dtype).requires_grad_() for _ in "qkv")
            dispatch_attention_fn(q, k, v, backend=chosen).sum().backward()
    except Exception as error:  # each backend fails in its own way
        raise ValueError(
            f"model.attention_backend {backend!r} cannot run on {device.type} in {str(dtype).removeprefix('torch.')}: "
            f"{(str(error) or type(error).__name__).splitlines()[0].rstrip('.')}; use null, torch's own"
        ) from error
    for layer in layers:
        if isinstance(layer, SelfAttention):
            layer.processor._attention_backend = chosen
        else:
            layer.set_processor(DispatchedAttnProcessor(chosen))
    return len(layers)


def attention_kernels(backend: str | None, device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Kernels of attention: on a CPU in bfloat16, if no backend is asked for, plain attention. There the fused kernel's
    backward pass took 17 ms where this takes 3 (64 images, 4 heads of 49 tokens, two cores of an AMD EPYC). In float32
    the fused kernel is the faster one: 1.5 times as many steps of a UNet2DModel with 196 tokens."""
    plain = device.type == "cpu" and precision == "bf16" and backend is None
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()
