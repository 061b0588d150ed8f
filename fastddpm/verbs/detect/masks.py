"""Masks of real anomalies, as far as somebody has painted them."""

from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from fastddpm.data.named_pictures import Fitting
from fastddpm.data.sources.folders import is_image


def read_masks(folder: Path, sources: Sequence[str], names: Sequence[str], fitting: Fitting) -> np.ndarray:
    """The mask of each image: white where there is an anomaly. An image without one is normal.

    Args:
        folder: of pictures named as the images, or the same and `_mask`, in folders named as theirs where they lie in
            some: ground_truth/crack/000_mask.png is the mask of test/crack/000.png. They are cut and scaled as these.
        sources: of the images: their paths.
        names: of the images, for files: without folders and endings.
        fitting: of the images.
    Returns: (N, H, W), bool.
    Raises: ValueError: no such folder, a mask that cannot be read, of several images or of none, two of an image; all
        images normal, or none, where nothing can be measured.
    """
    if not folder.is_dir():
        raise ValueError(f"--masks is {folder}, which is no folder; wanted one with a picture for each mask")
    found: dict[int, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and is_image(path.name)):
        whose = _images_of(path.relative_to(folder), sources, names)
        if len(whose) != 1:
            said = (
                "no image" if not whose else f"{len(whose)} images, among them {sources[whose[0]]}, that are named so"
            )
            raise ValueError(f"{path} is the mask of {said} here; wanted names such as {names[0]}_mask.png")
        if whose[0] in found:
            raise ValueError(f"{path} and {found[whose[0]]} are both masks of {names[whose[0]]}; leave one of them")
        found[whose[0]] = path
    nothing = np.zeros(fitting.image_shape[1:], dtype=bool)
    masks = np.stack([fitting.mask(found[place]) if place in found else nothing for place in range(len(names))])
    count = int(masks.any((1, 2)).sum())
    if count in (0, len(masks)):
        raise ValueError(
            f"{folder} marks something in {count} of {len(masks)} images; to measure takes some that are normal and "
            "some that are not: add images, or leave --masks out"
        )
    return masks


def _images_of(mask: PurePath, sources: Sequence[str], names: Sequence[str]) -> list[int]:
    """The images that a mask is named after: as far as both paths go, from the file up, they are the same."""
    for stem in (mask.stem, mask.stem.removesuffix("_mask")):
        parts = mask.with_name(stem).parts
        alike = [place for place, name in enumerate(names) if name == stem and len(parts) == 1]
        alike += [
            place for place, source in enumerate(sources) if _end_alike(parts, PurePath(source)) and place not in alike
        ]
        if alike:
            return alike
    return []


def _end_alike(mask: Sequence[str], source: PurePath) -> bool:
    image = source.with_suffix("").parts
    count = min(len(mask), len(image))
    return tuple(mask[-count:]) == image[-count:]
