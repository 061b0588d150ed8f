"""Boxes to paste, as CutMix draws them.  (Yun et al. 2019, Sec. 3.1)"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

NUM_UNIFORMS = 5
"""numbers that a box takes"""


def draw_boxes(uniforms: Tensor, alpha: float, height: int, width: int) -> Tensor:
    """Boxes of a share of 1 - lambda of the image, lambda ~ Beta(alpha, alpha), centred anywhere, cut at the edges.

    Args:
        uniforms: (B, 5), float64, of [0, 1).
        alpha: > 0; 1 is CutMix's: every share is as likely.
    Returns: (B, 4), int64: top, left, height, width; a box may be empty.
    """
    side = (1 - symmetric_beta(uniforms[:, :3], alpha)).sqrt()
    sizes = torch.stack([side * height, side * width], dim=1).long()
    centres = (uniforms[:, 3:] * torch.tensor([height, width])).long()
    limits = torch.tensor([height, width])
    firsts, ends = (centres - sizes // 2).clamp_min(0), torch.minimum(centres + (sizes + 1) // 2, limits)
    return torch.cat([firsts, ends - firsts], dim=1)


def symmetric_beta(uniforms: Tensor, alpha: float) -> Tensor:
    """Beta(alpha, alpha), exactly, from three uniforms each.  (Devroye 1996, "one line of code", for all alpha > 0)

    Args:
        uniforms: (B, 3), float64, of [0, 1).
    Returns: (B,), float64, in [0, 1].
    """
    u, v, w = uniforms.unbind(1)
    spread = ((1 - u).pow(-1 / alpha) - 1) * (2 * math.pi * v).cos().square()
    half = 0.5 / (1 + 1 / spread).sqrt()
    return torch.where(w < 0.5, 0.5 - half, 0.5 + half)


def masks_of_boxes(boxes: Sequence[Sequence[int]] | Tensor, height: int, width: int) -> Tensor:
    """True inside: (B, 1, H, W), bool.

    Args:
        boxes: (B, 4): top, left, height, width.
    Raises: ValueError: not four whole numbers each, or outside of the image.
    """
    found = torch.as_tensor(boxes)
    if found.dim() != 2 or found.shape[1] != 4 or found.is_floating_point():
        raise ValueError(f"boxes are {tuple(found.shape)} of {found.dtype}; wanted (top, left, height, width) for each")
    tops, lefts, heights, widths = found.to(torch.int64)[:, :, None].unbind(1)
    inside = (tops >= 0) & (lefts >= 0) & (heights >= 0) & (widths >= 0)
    if not bool((inside & (tops + heights <= height) & (lefts + widths <= width)).all()):
        raise ValueError(f"boxes {found.tolist()} leave the image of {height}x{width} (top, left, height, width)")
    rows, columns = torch.arange(height)[None, :], torch.arange(width)[None, :]
    in_rows = (rows >= tops) & (rows < tops + heights)
    in_columns = (columns >= lefts) & (columns < lefts + widths)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
