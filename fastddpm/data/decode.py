"""One picture from whatever Pillow reads to (C, H, W) uint8: a rule for each mode, and no silent conversion.

mode                becomes
1, L                grayscale
RGB, P              colour
LA, RGBA, PA        the same without alpha; where a pixel is transparent, laid on the background, refused without one
CMYK                colour, by its profile; refused without one
I, I;16, F, ...     refused: no conversion to 8 bits is right for all of them
rotation            by EXIF or XMP is applied
colour profiles     are applied before anything else (see `data.colour`)
animated, several pages  refused: which frame is meant? A JPEG with further pictures in it (MPO, of phones): the first
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps

from fastddpm.data.colour import Profile, profile_of, to_srgb
from fastddpm.data.deep import Deep
from fastddpm.data.draft import Draft, drafted
from fastddpm.data.fit import Fit
from fastddpm.data.meaning import Meaning
from fastddpm.data.opening import BadImage, reason_of
from fastddpm.data.stacks import pages_of

_GRAYSCALE = ("1", "L", "LA")
_COLOUR = ("RGB", "P", "RGBA", "PA")
_WITH_ALPHA = ("LA", "RGBA", "PA")
LARGE = 2**24
"""pixels; of pictures with more, two are decoded at a time, as each may be held a few times over"""
_few_large = threading.Semaphore(2)


@dataclass(frozen=True)
class Header:
    """Facts about a picture before its pixels are decoded."""

    mode: str
    """Pillow's name"""
    is_colour: bool
    """three channels"""
    size: tuple[int, int]
    """(width, height) in pixels, after EXIF rotation"""
    profile: str | None = None
    """name of its colour profile and what becomes of it"""


def inspect(open_image: Callable[[], Image.Image], meaning: Meaning) -> Header:
    """Check a picture as far as possible without decoding it.

    Args:
        open_image: opens the picture anew; whatever it raises counts against the picture.
    Raises: BadImage: unreadable, too large, animated, or of a mode that has no unambiguous 8-bit meaning.
    """
    try:
        with open_image() as image:
            profile = profile_of(image, meaning.color_management)
            _check(image, profile, meaning)
            header = _header(image, profile)
            if image.format == "PNG":
                image.verify()  # compares the checksums, which decoding does not
            return header
    except BadImage:  # from itself it would be a cycle, which keeps the picture until a garbage collection
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on a broken file
        raise reason_of(error) from error


def decode(open_image: Callable[[], Image.Image], fit: Fit) -> tuple[np.ndarray, Header]:
    """Decode, rotate as EXIF says, convert and fit a picture that `inspect` let pass.

    Args:
        open_image: opens the picture anew.
    Returns: (C, H, W), uint8, and what it was before.
    Raises: BadImage: truncated or otherwise undecodable, too small for the cut, or with transparent pixels and no
        background for them.
    """
    with ExitStack() as held:
        try:
            with open_image() as opened:
                profile = profile_of(opened, fit.meaning.color_management)
                header = _header(opened, profile)
                is_reducible = fit.meaning.draft and (profile is None or profile.is_like_srgb)
                draft = drafted(opened, fit, header.size) if is_reducible else Draft()
                if opened.width * opened.height > LARGE:
                    held.enter_context(_few_large)
                upright = opened.scaled(fit.meaning) if isinstance(opened, Deep) else _upright(opened)
                image = _converted(_opaque(to_srgb(upright, profile), fit), "L" if fit.channels == 1 else "RGB")
        except BadImage:  # as above
            raise
        except Exception as error:
            raise reason_of(error) from error
        if (why := fit.refusal(header.size if draft.scale > 1 else image.size)) is not None:
            raise BadImage(why)
        image = draft.fitted(image, fit, header.size)
        pixels = np.asarray(image)  # (H, W) or (H, W, 3)
        return (pixels[None] if fit.channels == 1 else pixels.transpose(2, 0, 1)), header


def _header(image: Image.Image, profile: Profile | None) -> Header:
    is_colour = image.mode in _COLOUR or image.mode == "CMYK"
    return Header(
        getattr(image, "kind", image.mode), is_colour, _upright_size(image), profile.name if profile else None
    )


def _check(image: Image.Image, profile: Profile | None, meaning: Meaning) -> None:
    if isinstance(image, Deep):
        image.range_of(meaning)
    pages = [] if "page" in image.info else pages_of(image)
    num_frames = pages[-1].number + 1 if pages else getattr(image, "n_frames", 1)
    if num_frames > 1 and image.format not in ("MPO", "HEIF") and "page" not in image.info:
        raise BadImage(f"is animated or has several pages ({num_frames}): save the one you want")
    layouts = [str(tile.args) for tile in getattr(image, "tile", ())]  # Pillow cuts 3x16 bits to 3x8
    is_deep = any(";16" in layout and "BGR;16" not in layout for layout in layouts)  # that one has 5, 6 and 5
    if is_deep:
        raise BadImage(f"has more than 8 bits a channel (Pillow's mode {image.mode}): scale it to 8 bits first")
    is_print = image.mode == "CMYK" and profile is not None and profile.transform is not None
    if image.mode not in _GRAYSCALE + _COLOUR and not is_print:
        raise BadImage(f"has the mode {image.mode}: convert it to 8-bit grayscale or RGB first")


def _upright_size(image: Image.Image) -> tuple[int, int]:
    # TIFF's size is upright by its own tag, not by XMP
    is_known = image.format == "TIFF" and ExifTags.Base.Orientation in image.tag_v2  # type: ignore[attr-defined]
    if is_known or (image.format == "PNG" and not {"exif", "xmp"} & set(image.info)):
        return image.size
    exif = Image.Image.getexif(image)  # PNG's own decodes first
    is_turned = exif.get(ExifTags.Base.Orientation, 1) >= 5
    return (image.height, image.width) if is_turned else image.size


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # what PNG says behind its pixels is known then
    is_told = image.format == "TIFF" or any("exif" in key or "xmp" in key for key in image.info)
    return ImageOps.exif_transpose(image) if is_told else image


def _converted(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # which copies, also to the same


def _opaque(image: Image.Image, fit: Fit) -> Image.Image:
    """Grayscale (L) or colour (RGB) without alpha."""
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        if with_alpha.getchannel("A").getextrema() != (255, 255):
            if fit.background is None:
                raise BadImage(f"has transparent pixels{_ON_SETTLED if fit.is_settled else _ON_COLOUR}")
            with_alpha = Image.alpha_composite(Image.new("RGBA", image.size, (*fit.background, 255)), with_alpha)
            return with_alpha.convert("RGB" if image.mode in _COLOUR else "L")
        image.info.pop("transparency", None)
    return _converted(image, "RGB" if image.mode in _COLOUR else "L")


_ON_COLOUR = ": give the colour to lay it on, such as --data.background '[255,255,255]'"
_ON_SETTLED = ", which a run's data.background decides about, and there is none: lay it on a colour first"
