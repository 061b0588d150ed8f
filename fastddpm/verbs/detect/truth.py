"""Truth about images that are judged: what their masks mark, and which kind of defect they are of."""

import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import ImageOps

from fastddpm.data.named_pictures import Fitting, NamedImages
from fastddpm.data.opening import BadImage, is_image, open_file, reason_of
from fastddpm.data.sources import Picture
from fastddpm.data.sources.masks import PathParts, PicturesByName, is_normal
from fastddpm.process import counted, some

LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000")
"""formats whose black is not quite black: what they mark is 128 or more"""


@dataclass(frozen=True, eq=False)
class Truth:
    """Truth about N images."""

    is_anomalous: np.ndarray
    """(N,), bool"""
    marked: np.ndarray | None
    """(N, H, W), bool; None: there are no masks"""
    left_out: Mapping[int, str]
    """images that are not measured, and why"""
    notes: Sequence[str] = ()
    """lines about masks, for people"""


def read_truth(folder: Path | None, inputs: NamedImages, names: Sequence[str], fitting: Fitting) -> Truth | None:
    """Read the masks of images, of a folder or of their own layout; without any, kinds of defects say what is normal.

    An image without a mask is normal, unless it is of a kind of defects: then it is not measured. Nor is one where all
    that is marked lies outside of what the model sees.

    Args:
        folder: of masks (see `masks_in`); None: those of the layout.
        names: of the images' files.
        fitting: of the images; masks are cut and scaled alike.
    Returns: None: nothing is known.
    Raises: ValueError: a mask that cannot be read, or is not of exactly one image; of a folder, masks of all images or
        of none, where nothing can be measured.
    """
    kinds = inputs.kinds or [None] * len(names)
    given = inputs.masks if folder is None else masks_in(folder, inputs.names, names)
    of_defects = np.fromiter((kind is not None and not is_normal(kind) for kind in kinds), bool)
    if given is None:
        return Truth(of_defects, None, {}) if True in of_defects and any(map(is_normal, kinds)) else None
    marked, left_out = np.zeros((len(names), *fitting.image_shape[1:]), bool), {}
    empty, cut_off = [], []
    for place, masks in enumerate(given):
        lost = 0
        for mask in masks:
            seen, num_unseen = fitted(mask, fitting)
            marked[place] |= seen
            lost += num_unseen
            empty += [mask.name] if not num_unseen and not seen.any() else []
        if lost and not marked[place].any():
            left_out[place] = "what its mask marks lies outside of what the model sees"
        elif lost:
            cut_off.append(inputs.names[place])
        elif of_defects[place] and not marked[place].any():
            left_out[place] = "its mask marks nothing" if masks else "has no mask"
    measured = [place for place in range(len(names)) if place not in left_out]
    count = int(marked[measured].any((1, 2)).sum())
    if folder is not None and count in (0, len(measured)):
        raise ValueError(
            f"{folder} marks something in {count} of {len(measured)} images; to measure takes some that are normal and "
            "some that are not: add images, or leave --masks out"
        )
    notes = [f"{counted(len(empty), 'mask')} marking nothing: {some(empty)}"] * bool(empty)
    if cut_off:
        notes.append(f"{counted(len(cut_off), 'image')} marked also outside of what the model sees: {some(cut_off)}")
    for reason in sorted(set(left_out.values())):
        those = [inputs.names[place] for place, why in left_out.items() if why == reason]
        notes.append(f"{counted(len(those), 'image')} not measured ({reason}): {some(those)}")
    if count in (0, len(measured)):
        notes.append(f"nothing is measured: {count} of {len(measured)} images are anomalous; it takes some of both")
    return Truth(np.asarray(marked.any((1, 2))), marked, left_out, notes)


def masks_in(folder: Path, sources: Sequence[str], names: Sequence[str]) -> list[tuple[Picture, ...]]:
    """Find the masks of each image.

    Args:
        folder: of pictures named as the images, or the same and `_mask`, in folders named as theirs where they lie in
            some: ground_truth/crack/000_mask.png is the mask of test/crack/000.png. Several masks of an image lie in a
            folder of its name.
        sources: of the images: their paths.
        names: of the images, for files: without folders and endings.
    Raises: ValueError: no such folder, a mask of several images or of none, two of an image.
    """
    if not folder.is_dir():
        raise ValueError(f"--masks is {folder}, which is no folder; wanted one with a picture for each mask")
    files = PathParts.all(path.replace("\\", "/") for path in sources)
    by_path = PicturesByName(dict(enumerate(files)))
    by_name = PicturesByName({place: PathParts((), name) for place, name in enumerate(names)})
    found: dict[int, list[Path]] = defaultdict(list)
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and is_image(path.name)):
        (mask,) = PathParts.all([path.relative_to(folder).as_posix()])
        whose = by_path.of_mask(mask) or ([] if mask.folders else by_name.of_mask(mask))
        if len(whose) != 1:
            said = f"{len(whose)} images, among them {sources[whose[0]]}, that are named so" if whose else "no image"
            raise ValueError(f"{path} is the mask of {said} here; wanted names such as {names[0]}_mask.png")
        others = found[whose[0]]
        if others and not path.parent.name == others[0].parent.name == files[whose[0]].stem:
            raise ValueError(f"{path} and {others[0]} are both masks of {names[whose[0]]}; leave one of them")
        others.append(path)
    return [tuple(Picture(str(of), partial(open_file, of)) for of in found.get(p, ())) for p in range(len(names))]


def mask_names(sources: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names for masks that are made of images: in folders as the images are, below the folder that holds all of them,
    so that they are found beside these: crack/000_mask.png of test/crack/000.png.

    Args: as of `masks_in`.
    """
    files = [PurePosixPath(source.replace("\\", "/")) for source in sources]
    plain = [f"{name}_mask.png" for name in names]
    if not all(is_image(file.name) for file in files) or len({file.is_absolute() for file in files}) > 1:
        return plain
    above = posixpath.commonpath([file.parent for file in files])
    found = [str(file.relative_to(above).with_name(f"{file.stem}_mask.png")) for file in files]
    return found if len(set(found)) == len(found) and not any(".." in PurePosixPath(n).parts for n in found) else plain


def fitted(mask: Picture, fitting: Fitting) -> tuple[np.ndarray, int]:
    """Cut and scale a mask as its image: a pixel is marked where any of its own pixels is.

    Returns: (H, W), bool, and the number of marked own pixels that are not seen.
    Raises: ValueError: no picture.
    """
    own = _marked(mask)
    height, width = fitting.image_shape[1:]
    if own.shape == (height, width) and min(own.shape) < (fitting.fit.center_crop or 0):
        return own, 0  # as its image
    place = fitting.fit.place((own.shape[1], own.shape[0]))
    sums = np.pad(own.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # of all above and to the left
    ends, inside = [], []
    for axis in (0, 1):
        pixels = np.arange(round(place.shown[axis]), round(place.shown[axis] + place.shown[2 + axis]))
        first = place.cut[axis] + (pixels - place.shown[axis]) * place.scale[axis]
        low, high = np.floor(first + 1e-6).astype(int), np.ceil(first + place.scale[axis] - 1e-6).astype(int)
        ends.append((low.clip(0, own.shape[axis]), high.clip(0, own.shape[axis])))
        inside.append(pixels)
    (top, bottom), (left, right) = ends
    counts = sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)] - sums[np.ix_(bottom, left)]
    seen = np.zeros((height, width), dtype=bool)
    seen[np.ix_(*inside)] = counts + sums[np.ix_(top, left)] > 0
    return seen, int(own.sum() - own[top[0] : bottom[-1], left[0] : right[-1]].sum())


def _marked(mask: Picture) -> np.ndarray:
    """(H, W), bool: what is not the mask's background, which is black, the palette's first colour, or transparent."""
    try:
        with mask.open() as opened:
            kind, image = opened.format, ImageOps.exif_transpose(opened)
            if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
                alpha = np.asarray(image.convert("RGBA").getchannel("A"))
                if not alpha.all():
                    return alpha > 0
                image = image.convert("RGB")
            values = np.asarray(image.convert("L") if kind in LOSSY else image)
    except BadImage as error:
        raise ValueError(f"{mask.name} {error}") from error
    except Exception as error:  # Pillow's readers raise nearly anything on a broken file
        raise ValueError(f"{mask.name} {reason_of(error)}") from error
    found = np.asarray(values >= 128 if kind in LOSSY else values != 0)
    return np.asarray(found.any(2)) if found.ndim == 3 else found
