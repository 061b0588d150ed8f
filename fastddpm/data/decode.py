"""One image file to one array; what cannot be read as its owner meant is refused with the reason, never guessed.

    mode                 becomes
    1, L                 grayscale
    RGB                  colour
    P, LA, PA, RGBA      as its opaque colours; refused where a pixel is transparent
    CMYK, I, I;16, F...  refused: no conversion to 8 bits is right for all of them
EXIF rotation is applied. More than one frame is refused.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 64_000_000
"""a file whose header promises more is not decoded"""


class BadFileError(ValueError):
    """Why a file cannot be used, in words for its owner."""


def read_image(path: Path) -> Image.Image:
    """Decode a file into an image of mode L or RGB.

    Raises: BadFileError: with the reason.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadFileError(f"{image.width}x{image.height} is more than {MAX_PIXELS:,} pixels; make it smaller")
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise BadFileError(f"it has {frames} frames; save the one you want")
            image.load()
            return _plain_mode(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        size = path.stat().st_size
        raise BadFileError("it is empty" if size == 0 else "it is no image that Pillow knows") from None
    except Image.DecompressionBombError:
        raise BadFileError(f"its header promises more than {MAX_PIXELS:,} pixels; make it smaller") from None
    except (OSError, SyntaxError) as error:
        raise BadFileError(f"it is damaged ({error})") from None


def _plain_mode(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode not in ("P", "LA", "PA", "RGBA"):
        raise BadFileError(f"its mode is {image.mode}; convert it to 8-bit gray or RGB first")
    opaque = image.convert("RGBA")
    if opaque.getchannel("A").getextrema() != (255, 255):
        raise BadFileError(f"it has transparent pixels (mode {image.mode}); put it on a background first")
    return opaque.convert("L" if image.mode == "LA" else "RGB")


def fit(image: Image.Image, side: int) -> Image.Image:
    """Scale the shorter side to `side` (bicubic, anti-aliased), then cut the middle square out."""
    width, height = image.size
    scale = side / min(width, height)
    scaled = (max(side, round(width * scale)), max(side, round(height * scale)))
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BICUBIC)
    left, top = (scaled[0] - side) // 2, (scaled[1] - side) // 2
    return image.crop((left, top, left + side, top + side))


def to_array(image: Image.Image, channels: int) -> np.ndarray:
    """(channels, H, W), uint8, of an image of mode L or RGB; gray is repeated, colour becomes ITU-R 601 luma."""
    array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return array[None] if channels == 1 else np.moveaxis(array, -1, 0)
