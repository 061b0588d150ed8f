"""Pictures whose numbers are not 8 bits a channel: TIFFs of science, DICOM, 16-bit grays. Black and white are told, by
`data.value_range`, `data.window` or a DICOM's own window; never guessed."""

import importlib.util
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageOps, TiffImagePlugin
from PIL.Image import Image, fromarray

from fastddpm.data.bad_image import BadImage
from fastddpm.data.meaning import Meaning, Range

File = Path | io.BytesIO
_NUMBERS = {1: "whole numbers", 2: "signed numbers", 3: "decimals (float)"}
"""by TIFF's SampleFormat"""


class Deep(Image):
    """A picture of such numbers, open and not decoded."""

    def __init__(self, kind: str, size: tuple[int, int], is_colour: bool, read: Callable[[], Any]) -> None:
        super().__init__()
        self.kind, self.read, self.extra = kind, read, ""
        self._size, self._mode = size, "RGB" if is_colour else "L"
        self.is_inverted, self.orientation = False, 1
        self.own_range: Range | None = None
        self.example = "value_range '[0, 65535]'"

    def range_of(self, meaning: Meaning) -> Range:
        """The values of black and white.  Raises: BadImage: nobody says them."""
        asked = meaning.window_range if self.kind.startswith("DICOM") else meaning.value_range
        found: Range | None = asked or self.own_range
        if found is None or self.extra:
            tell = "" if found else f"say what is black and white, such as --data.{self.example}"
            install = f"pip install 'fastddpm[{self.extra}]'" if self.extra else ""
            raise BadImage(f"{self.kind}: {', after '.join(filter(None, (tell, install)))}")
        return found

    def scaled(self, meaning: Meaning) -> Image:
        """Scale to 8 bits, L or RGB, upright: linearly between black and white, and cut there."""
        low, high = self.range_of(meaning)
        values = np.asarray(self.read(), dtype=np.float64)
        if not np.isfinite(values).all():
            raise BadImage("holds values that are not finite")
        image = fromarray((((values - low) / (high - low)).clip(0, 1) * 255).round().astype(np.uint8))
        image = ImageOps.invert(image) if self.is_inverted else image
        image.getexif()[0x0112] = self.orientation
        return ImageOps.exif_transpose(image)


def deep_of(image: Image, file: File) -> Deep | None:
    """The same picture, if its numbers are not 8 unsigned bits; None: they are."""
    if image.format == "TIFF":
        return tiff_of(file, image.tag_v2)  # type: ignore[attr-defined]
    if not image.mode.startswith(("I", "F")):
        return None
    return Deep(
        f"has more than 8 bits a channel (Pillow's mode {image.mode})", image.size, False, lambda: np.asarray(image)
    )


def tiff_of(file: File, tags: Mapping[int, Any] | None = None) -> Deep | None:
    """The first page of a TIFF, if its numbers are not 8 unsigned bits.

    Args:
        tags: of that page, where they were read.
    Raises: BadImage: of other channels than 1 or 3.
    """
    tags = _tags(file) if tags is None else tags
    (bits, *_), (sort, *_), count = tags.get(258, (1,)), tags.get(339, (1,)), tags.get(277, 1)
    if (bits <= 8 and sort == 1 and 1 <= count <= 4 and count != 2) or (count == 2 and tags.get(338) == (2,)):
        return None
    if count not in (1, 3):
        raise BadImage(f"has {count} channels (bands) of {bits} bits, wanted 1 or 3: save those that are meant")
    what = _NUMBERS.get(sort, "complex numbers")
    kind = f"has more than 8 bits a channel ({bits} bits, {what})" if bits > 8 else f"holds {what} of {bits} bits"
    turned = tags.get(274, 1)
    size = (tags[256], tags[257]) if turned < 5 else (tags[257], tags[256])
    found = Deep(kind, size, count == 3, lambda: _page(file))
    found.is_inverted, found.orientation = tags.get(262) == 0, turned
    found.extra = _missing("tifffile", "tiff")
    if sort in (2, 3):
        low, high = (0, 1) if sort == 3 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        found.example = f"value_range '[{low}, {high}]'"
    return found


def dicom_of(file: File) -> Deep:
    """The picture in a DICOM file.

    Raises: BadImage: several frames, or pydicom is missing.
    """
    if extra := _missing("pydicom", "dicom"):
        raise BadImage(f"is a DICOM file, which takes pip install 'fastddpm[{extra}]'")
    import pydicom

    data = pydicom.dcmread(_rewound(file))
    if (frames := int(data.get("NumberOfFrames", 1))) > 1:
        raise BadImage(f"is animated or has several pages ({frames}): save the one you want")
    is_colour, bits = data.SamplesPerPixel == 3, data.BitsStored
    read = lambda: pydicom.pixels.apply_modality_lut(data.pixel_array, data)  # noqa: E731
    found = Deep(f"DICOM of {bits} bits", (data.Columns, data.Rows), is_colour, read)
    found.is_inverted, found.example = (
        data.PhotometricInterpretation == "MONOCHROME1",
        "window '[40, 400]' (middle, width)",
    )
    if "WindowCenter" in data and data.get("VOILUTFunction", "LINEAR") != "SIGMOID":
        middle, width = (np.ravel(data[name].value)[0] for name in ("WindowCenter", "WindowWidth"))
        exact = data.get("VOILUTFunction") == "LINEAR_EXACT"
        found.own_range = Meaning(window=(float(middle) + exact / 2, float(width) + exact)).window_range
    elif bits <= 8:
        found.own_range = 0, 2**bits - 1
    return found


def _page(file: File) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(_rewound(file)) as tiff:
        page = tiff.pages[0]
        values = page.asarray(maxworkers=1)
    return values.transpose(1, 2, 0) if page.axes == "SYX" else values


def _tags(file: File) -> Mapping[int, Any]:
    content = file.read_bytes() if isinstance(file, Path) else file.getvalue()
    found = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if content[2:3] == b"+" or content[3:4] == b"+" else 8])
    opened = io.BytesIO(content)
    opened.seek(found.next)
    found.load(opened)
    return found


def _rewound(file: File) -> File:
    if isinstance(file, io.BytesIO):
        file.seek(0)
    return file


def _missing(package: str, extra: str) -> str:
    return "" if importlib.util.find_spec(package) else extra
