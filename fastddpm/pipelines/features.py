"""What the layers of a U-Net see, beside what it predicts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def feature_layers(unet: Any) -> list[nn.Module]:
    """The bottleneck of a U-Net and each level on its way up, each puts out (B, D, h, w).

    Raises: ValueError: a network of another build.
    """
    if hasattr(unet, "up_attentions"):  # ours: a block a level, each followed by its attention
        return [unet.down_attentions[-1], *reversed(unet.up_attentions)]
    layers = [getattr(unet, "mid_block", None), *getattr(unet, "up_blocks", ())]
    if found := [layer for layer in layers if layer is not None]:
        return found
    raise ValueError(
        f"{type(unet).__name__} has neither mid_block nor up_blocks, so it shows no features; ask for the kinds noise "
        "and pixel only"
    )


@contextmanager
def tapped(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What each layer put out last, in place, while the context is open."""
    seen: list[Any] = [None] * len(layers)

    def keep(place: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            seen[place] = output

        return hook

    handles = [layer.register_forward_hook(keep(place)) for place, layer in enumerate(layers)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
