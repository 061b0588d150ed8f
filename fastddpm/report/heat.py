"""Anomaly maps to look at: as heat, and laid over the image."""

import numpy as np

_RED = np.array([235, 40, 40], dtype=np.float64)
MOST = 2.0
"""thresholds at which a map is as hot as it gets"""


def heat(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Maps in the colours of glowing metal; the threshold is in the middle.

    Args:
        maps: (N, H, W), float.
        threshold: above 0.
    Returns: (N, 3, H, W), uint8.
    """
    from matplotlib import colormaps  # takes a moment: only when something is drawn

    colours = colormaps["inferno"](np.clip(maps / (MOST * threshold), 0, 1))[..., :3]
    return np.moveaxis((colours * 255).round().astype(np.uint8), -1, 1)


def overlay(images: np.ndarray, maps: np.ndarray, threshold: float) -> np.ndarray:
    """Images with what is above the threshold in red, and its outline.

    Args:
        images: (N, C, H, W), uint8.
        maps: (N, H, W), float.
    Returns: (N, 3, H, W), uint8.
    """
    count, _, height, width = images.shape
    inside = maps > threshold
    share = np.where(inside, 0.45, 0.0)
    share[inside & ~_within(inside)] = 1.0
    colour = np.broadcast_to(images, (count, 3, height, width)).astype(np.float64)
    red = _RED[None, :, None, None]
    return (colour + share[:, None] * (red - colour)).round().astype(np.uint8)


def _within(inside: np.ndarray) -> np.ndarray:
    """Pixels whose four neighbours are inside too; beyond the edge there is nothing."""
    padded = np.pad(inside, ((0, 0), (1, 1), (1, 1)))
    return padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:] & inside
