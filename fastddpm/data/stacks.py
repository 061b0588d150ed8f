"""Stacks: TIFFs of several pages and DICOMs of several frames. Each is a picture of its own, read alone."""

import io
import json
import re
from math import prod
from pathlib import Path

from PIL import Image, TiffImagePlugin

from fastddpm.data.bad_image import BadImage
from fastddpm.data.deep import Deep, File, Page, deep_of, directories
from fastddpm.data.opening import check_num_pixels

ENDINGS = (".tif", ".tiff", ".dcm", ".dicom")
"""endings of files that may be stacks"""
_REDUCED_OR_MASK = 0b101
"""bits of TIFF's NewSubfileType"""
_AXES = {"C": "channels", "Z": "slices", "T": "frames"}


def pages_of(image: Image.Image) -> list[Page]:
    """Find the pages of a TIFF or DICOM that is open, without the thumbnails and masks among them; others have none.

    Raises: BadImage: they are no pictures along one axis, as where channels lie on pages of their own.
    """
    if isinstance(image, Deep) and image.num_frames:
        return [Page(number, 0) for number in range(image.num_frames)]
    if (file := _tiff(image)) is None:
        return []
    pages: list[Page] = []
    axes: dict[str, int] = {}
    sizes: dict[str, None] = {}
    for number, (place, tags) in enumerate(directories(file)):
        if not tags.get(254, 0) & _REDUCED_OR_MASK:
            pages.append(Page(number, place))
            sizes[f"{tags.get(256)}x{tags.get(257)}"] = None
            axes = axes if number else _axes(str(tags.get(270)), tags.get(277, 1))
    if len(sizes) > 1:  # as thumbnails are that nothing marks as such
        raise BadImage(f"has several pages, of {len(sizes)} sizes ({', '.join([*sizes][:3])}): save the one you want")
    axes = {name: count for name, count in axes.items() if count > 1}
    said = " x ".join(f"{count} {name}" for name, count in axes.items())
    if len(axes) > 1 or "channels" in axes:
        raise BadImage(f"holds {said}, wanted pages along one axis: save what is meant as stacks of one axis, or alone")
    if axes and prod(axes.values()) != len(pages):
        raise BadImage(f"holds {said} by its description, and {len(pages)} pages: save each as a page")
    return pages


def at_page(image: Image.Image, page: Page) -> Image.Image:
    """Turn to one page of a file that is open.  Raises: BadImage: larger than a picture may be."""
    found: Image.Image = image
    if isinstance(image, Deep):
        found = image.at(page)
    elif (file := _tiff(image)) is not None:
        image.info.pop("icc_profile", None)  # which Pillow would keep for the next page
        image._frame_pos = [page.place] * (page.number + 1)  # type: ignore[attr-defined]  # or it reads all before
        image.seek(page.number)
        found = deep_of(image, file, page.number) or image
    check_num_pixels(found)
    found.info["page"] = page.number
    return found


def _tiff(image: Image.Image) -> File | None:
    if isinstance(image, Deep):
        return image.file
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    return image.fp if isinstance(image.fp, io.BytesIO) else Path(str(image.filename))


def _axes(text: str, samples: int) -> dict[str, int]:
    """Axes that ImageJ, OME or tifffile tells of in a page's description, beside height, width and its own samples."""
    if text.startswith('{"shape": ['):
        shape = json.loads(text)["shape"]
        return {f"on axis {axis}": count for axis, count in enumerate(shape[: -2 - (samples > 1)])}
    of_ome = {_AXES[axis]: int(count) for axis, count in re.findall(r'\bSize([CZT])="(\d+)"', text)}
    if "<OME" in text[:1000] and of_ome:
        return {**of_ome, "channels": of_ome.get("channels", 1) // samples}
    found = dict(
        re.findall(r"^(images|channels|slices|frames)=(\d+)", text if text.startswith("ImageJ=") else "", re.M)
    )
    return {name: int(count) for name, count in found.items() if name != "images" or len(found) == 1}
