"""Where anomalies really are, as far as somebody has painted it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastddpm.data.decode import BadImage, Fit, decode, inspect
from fastddpm.data.sources.files import is_image, open_file

ENDINGS = ("", "_mask")
"""of a mask's name, after that of its image"""


def read_masks(folder: Path, names: Sequence[str], image_shape: tuple[int, int, int]) -> np.ndarray:
    """The mask of each image: white where there is an anomaly. An image without one is normal.

    Args:
        folder: of pictures named as the images, or the same and `_mask`; they are scaled and cut as the images are.
        names: of the images, without folders and endings.
        image_shape: (C, H, W) of the images.
    Returns: (N, H, W), bool.
    Raises: ValueError: no such folder, a mask that cannot be read, of two names or of no image; all images normal, or
        none, where nothing can be measured.
    """
    if not folder.is_dir():
        raise ValueError(f"--masks is {folder}, which is no folder; wanted one with a picture for each mask")
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and is_image(path.name)):
        name = path.stem if path.stem in names else path.stem.removesuffix("_mask")
        if name not in names:
            raise ValueError(f"{path} is the mask of no image here; wanted names such as {names[0]}_mask.png")
        if name in found:
            raise ValueError(f"{path} and {found[name]} are both masks of {name}; leave one of them")
        found[name] = path
    _, height, width = image_shape
    nothing = np.zeros((height, width), dtype=bool)
    masks = np.stack([_read(found[name], height, width) if name in found else nothing for name in names])
    count = int(masks.any((1, 2)).sum())
    if count in (0, len(masks)):
        raise ValueError(
            f"{folder} marks something in {count} of {len(masks)} images; to measure takes some that are normal and "
            "some that are not: add images, or leave --masks out"
        )
    return masks


def _read(path: Path, height: int, width: int) -> np.ndarray:
    try:
        inspect(lambda: open_file(path))
        pixels, header = decode(lambda: open_file(path), Fit(1, height if height == width else None))
    except BadImage as error:
        raise ValueError(f"{path} {error}") from error
    if pixels.shape[1:] != (height, width):
        raise ValueError(f"{path} is {header.size[0]}x{header.size[1]}; its image is {width}x{height}")
    return pixels[0] >= 128
