"""One picture from whatever Pillow reads to (C, H, W) uint8: a rule for each mode, and no silent conversion.

mode                becomes
1, L                grayscale
RGB, P              colour
LA, RGBA, PA        the same without alpha; refused where a pixel is transparent
CMYK, I, I;16, F ...  refused: no conversion to 8 bits is right for all of them
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 64 * 2**20
"""a larger picture is refused before it is decoded"""

_GRAYSCALE = ("1", "L", "LA")
_COLOUR = ("RGB", "P", "RGBA", "PA")
_WITH_ALPHA = ("LA", "RGBA", "PA")


class BadImage(ValueError):
    """A picture that cannot be used; the message is the reason, and what to do where something can be done."""


@dataclass(frozen=True)
class Header:
    """What is known of a picture before its pixels are decoded."""

    mode: str
    """Pillow's name"""
    is_colour: bool
    """three channels"""
    size: tuple[int, int]
    """(width, height) in pixels, after EXIF rotation"""


def inspect(open_image: Callable[[], Image.Image]) -> Header:
    """Check a picture as far as possible without decoding it.

    Args:
        open_image: opens the picture anew; whatever it raises counts against the picture.
    Raises: BadImage: unreadable, too large, animated, or of a mode that has no unambiguous 8-bit meaning.
    """
    try:
        with open_image() as image:
            _check(image)
            header = Header(image.mode, image.mode in _COLOUR, _upright_size(image))
            if image.format == "PNG":
                image.verify()  # compares the checksums, which decoding does not
            return header
    except Exception as error:  # Pillow's readers raise nearly anything on a broken file
        raise _bad(error) from error


def decode(open_image: Callable[[], Image.Image], channels: int, image_size: int | None) -> np.ndarray:
    """Decode, rotate as EXIF says, convert and fit a picture.

    Args:
        open_image: opens the picture anew.
        channels: 1 (colour becomes ITU-R 601 luma) or 3 (grayscale is repeated).
        image_size: side in pixels; the shorter side is resized to it (bicubic, antialiased) and the longer one
            cropped at its centre. None: the picture's own size.
    Returns: (C, H, W), uint8.
    Raises: BadImage: truncated or otherwise undecodable, or with transparent pixels.
    """
    try:
        with open_image() as opened:
            image = _opaque(ImageOps.exif_transpose(opened)).convert("L" if channels == 1 else "RGB")
    except Exception as error:  # as above
        raise _bad(error) from error
    if image_size is not None:
        image = ImageOps.fit(image, (image_size, image_size), method=Image.Resampling.BICUBIC)
    pixels = np.asarray(image)  # (H, W) or (H, W, 3)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _check(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"has {image.width}x{image.height} pixels, the limit is {MAX_PIXELS:,}: make it smaller first")
    if (num_frames := getattr(image, "n_frames", 1)) > 1:
        raise BadImage(f"is animated or has several pages ({num_frames}): save the one you want")
    is_deep = any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))  # Pillow cuts 3x16 bits to 3x8
    if is_deep or image.mode.startswith(("I", "F")):
        raise BadImage(f"has more than 8 bits a channel (Pillow's mode {image.mode}): scale it to 8 bits first")
    if image.mode not in _GRAYSCALE + _COLOUR:
        raise BadImage(f"has the mode {image.mode}: convert it to 8-bit grayscale or RGB first")


def _upright_size(image: Image.Image) -> tuple[int, int]:
    # TIFF's size is upright already; getexif() would decode a PNG that has no EXIF in its header
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return image.size
    is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (image.height, image.width) if is_turned else image.size


def _opaque(image: Image.Image) -> Image.Image:
    """Grayscale (L) or colour (RGB) without alpha."""
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        if image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            raise BadImage("has transparent pixels: flatten it onto a background first")
        image.info.pop("transparency", None)
    return image.convert("RGB" if image.mode in _COLOUR else "L")


def _bad(error: Exception) -> BadImage:
    if isinstance(error, BadImage):
        return error
    if isinstance(error, UnidentifiedImageError):
        return BadImage("is no image in a format that Pillow reads")
    return BadImage(f"cannot be decoded: {error or type(error).__name__}")
