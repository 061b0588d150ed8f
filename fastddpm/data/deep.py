"""Pictures whose numbers are not 8 bits a channel: TIFFs of science, DICOM, 16-bit grays. Black and white are told, by
`data.value_range`, `data.window` or a DICOM's own window; never guessed."""

import importlib.util
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ImageOps, TiffImagePlugin
from PIL.Image import Image, fromarray

from fastddpm.data.bad_image import BadImage
from fastddpm.data.meaning import Meaning, Range

File = Path | io.BytesIO
_NUMBERS = {1: "whole numbers", 2: "signed numbers", 3: "decimals (float)"}
"""by TIFF's SampleFormat"""


class Page(NamedTuple):
    """A page of a TIFF, or a frame of a DICOM."""

    number: int
    """counted from 0"""
    place: int
    """offset of a page's tags"""


class Deep(Image):
    """A picture of such numbers, open and not decoded."""

    def __init__(self, kind: str, size: tuple[int, int], is_colour: bool, read: Callable[[], Any]) -> None:
        super().__init__()
        self.kind, self.read, self.extra = kind, read, ""
        self._size, self._mode = size, "RGB" if is_colour else "L"
        self.is_inverted, self.orientation = False, 1
        self.own_range: Range | None = None
        self.example = "value_range '[0, 65535]'"
        self.file: File | None = None
        """a TIFF's"""
        self.num_frames = 0
        """a DICOM's"""
        self.at: Callable[[Page], Deep]

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


def deep_of(image: Image, file: File, number: int = 0) -> Deep | None:
    """The same picture, or page that it is turned to, if its numbers are not 8 unsigned bits; None: they are."""
    if image.format == "TIFF":
        return tiff_of(file, image.tag_v2, number)  # type: ignore[attr-defined]
    if not image.mode.startswith(("I", "F")):
        return None
    return Deep(
        f"has more than 8 bits a channel (Pillow's mode {image.mode})", image.size, False, lambda: np.asarray(image)
    )


def tiff_of(file: File, tags: Mapping[int, Any] | None = None, number: int = 0) -> Deep | None:
    """One page of a TIFF, if its numbers are not 8 unsigned bits.

    Args:
        tags: those of that page; None: of the first.
    Raises: BadImage: of other channels than 1 or 3.
    """
    tags = next(directories(file))[1] if tags is None else tags
    (bits, *_), (sort, *_), count = tags.get(258, (1,)), tags.get(339, (1,)), tags.get(277, 1)
    if (bits <= 8 and sort == 1 and 1 <= count <= 4 and count != 2) or (count == 2 and tags.get(338) == (2,)):
        return None
    if count not in (1, 3):
        raise BadImage(f"has {count} channels (bands) of {bits} bits, wanted 1 or 3: save those that are meant")
    what = _NUMBERS.get(sort, "complex numbers")
    kind = f"has more than 8 bits a channel ({bits} bits, {what})" if bits > 8 else f"holds {what} of {bits} bits"
    turned = tags.get(274, 1)
    size = (tags[256], tags[257]) if turned < 5 else (tags[257], tags[256])
    found = Deep(kind, size, count == 3, lambda: _page(file, number))
    found.is_inverted, found.orientation = tags.get(262) == 0, turned
    found.file, found.at, found.extra = file, lambda page: _deep_page(file, page), _missing("tifffile", "tiff")
    if sort in (2, 3):
        low, high = (0, 1) if sort == 3 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        found.example = f"value_range '[{low}, {high}]'"
    return found


def dicom_of(file: File, frame: int = 0) -> Deep:
    """One frame of a DICOM file.

    Raises: BadImage: pydicom is missing.
    """
    if extra := _missing("pydicom", "dicom"):
        raise BadImage(f"is a DICOM file, which takes pip install 'fastddpm[{extra}]'")
    import pydicom

    data = pydicom.dcmread(_rewound(file), stop_before_pixels=True)
    if "SamplesPerPixel" not in data:
        raise BadImage("is a DICOM file without a picture, or cut off: leave it out")
    is_colour, bits = data.SamplesPerPixel == 3, data.BitsStored

    def read() -> np.ndarray:
        pixels = pydicom.pixels.pixel_array(_rewound(file), index=frame)
        return pydicom.pixels.apply_modality_lut(
            pixels, next(_told(data, frame, "PixelValueTransformationSequence"), data)
        )

    found = Deep(f"DICOM of {bits} bits", (data.Columns, data.Rows), is_colour, read)
    found.is_inverted, found.example = (
        data.PhotometricInterpretation == "MONOCHROME1",
        "window '[40, 400]' (middle, width)",
    )
    found.num_frames, found.at = int(data.get("NumberOfFrames", 1)), lambda page: dicom_of(file, page.number)
    seen = next(_told(data, frame, "FrameVOILUTSequence"), data)
    if "WindowCenter" in seen and seen.get("VOILUTFunction", "LINEAR") != "SIGMOID":
        middle, width = (np.ravel(seen[name].value)[0] for name in ("WindowCenter", "WindowWidth"))
        exact = seen.get("VOILUTFunction") == "LINEAR_EXACT"
        found.own_range = Meaning(window=(float(middle) + exact / 2, float(width) + exact)).window_range
    elif bits <= 8:
        found.own_range = 0, 2**bits - 1
    return found


def _told(data: Any, frame: int, name: str) -> Iterator[Any]:
    """Find what a DICOM of many frames says of one of them, or of all.  (PS3.3, C.7.6.16)"""
    per_frame = data.get("PerFrameFunctionalGroupsSequence") or ()
    for groups in (*per_frame[frame : frame + 1], *(data.get("SharedFunctionalGroupsSequence") or ())):
        yield from groups.get(name) or ()


def _page(file: File, number: int) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(_rewound(file)) as tiff:
        page = tiff.pages[number]
        values = page.asarray(maxworkers=1)
    return values.transpose(1, 2, 0) if page.axes == "SYX" else values


def _deep_page(file: File, page: Page) -> Deep:
    if (found := tiff_of(file, next(directories(file, page.place))[1], page.number)) is None:
        raise BadImage("has 8 bits a channel, the first page of its file more: save it alone")
    return found


def directories(file: File, first: int | None = None) -> Iterator[tuple[int, Mapping[int, Any]]]:
    """Go through a TIFF's pages, from an offset: that of each one's tags, and these, until the next is asked for."""
    with opened(file) as of:
        head = of.read(16)
        found = TiffImagePlugin.ImageFileDirectory_v2(head if 43 in head[2:4] else head[:8])  # 43: a BigTIFF
        offset, seen = first or found.next, set[int]()
        while offset and offset not in seen:
            seen.add(offset)
            of.seek(offset)
            found.load(of)
            yield offset, found
            offset = found.next


def opened(file: File) -> Any:
    """The file at its beginning, for a `with`; bytes stay open."""
    return file.open("rb") if isinstance(file, Path) else nullcontext(_rewound(file))


def _rewound(file: File) -> Any:
    if not isinstance(file, Path):
        file.seek(0)
    return file


def _missing(package: str, extra: str) -> str:
    return "" if importlib.util.find_spec(package) else extra
