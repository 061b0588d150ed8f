"""Embedded colour profiles: pixels become what they look like in sRGB, or gray of its curve, by Pillow's ImageCms."""

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from fastddpm.data.nclx import profile_saying

KIND = {
    "1": "L", "L": "L", "LA": "L", "RGB": "RGB", "P": "RGB", "RGBA": "RGB", "PA": "RGB", "CMYK": "CMYK",
}  # fmt: skip
"""mode -> what a profile is of; other modes have none"""
_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
_LIKE_SRGB = 12
"""levels that a profile's grays may lie off sRGB's, so that means of pixels are taken as well before as afterwards"""


@dataclass(frozen=True)
class Profile:
    """An embedded profile, for pictures of one kind."""

    name: str
    """name that the profile has for itself, and what becomes of it; for counts"""
    takes: str
    """mode that `transform` takes: L, RGB or CMYK"""
    transform: Any = None
    """to sRGB, an `ImageCms.ImageCmsTransform`; None: nothing is to be done, or can be"""
    is_like_srgb: bool = True
    """true if its curve is nearly that of sRGB"""


def profile_of(image: Image.Image, management: str) -> Profile | None:
    """The profile that a picture carries, as its header says; None: it has none.

    Args:
        management: `srgb`, or `off`, which leaves pixels as they are.
    Raises: BadImage: of HDR, or tags (nclx) that are not known.
    """
    content = image.info.get("icc_profile")
    nclx = None if content else image.info.get("nclx")
    if nclx is not None and not nclx.is_srgb:
        if management == "off":
            return Profile(f"{nclx}, ignored", KIND[image.mode])
        content = profile_saying(nclx)
    if not content or image.mode not in KIND:
        return None
    found = _read(bytes(content), KIND[image.mode])
    return found if management == "srgb" else Profile(f"{found.name.partition(', ')[0]}, ignored", found.takes)


def to_srgb(image: Image.Image, profile: Profile | None) -> Image.Image:
    """Pixels in sRGB: L stays L, others become RGB; transparency is kept."""
    if profile is None or profile.transform is None:
        return image
    is_gray = KIND[image.mode] == "L"
    has_alpha = image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info
    alpha = image.convert("RGBA").getchannel("A") if has_alpha else None
    seen = profile.transform.apply(image.convert(KIND[image.mode]).convert(profile.takes))
    seen = seen.getchannel("G") if is_gray else seen  # of a gray all three are alike
    if alpha is not None:
        seen.putalpha(alpha)
    return seen


@lru_cache(maxsize=16)  # one of a print is 500 KB
def _read(content: bytes, kind: str) -> Profile:
    from PIL import ImageCms

    name = "a profile that cannot be read"
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        name = " ".join(ImageCms.getProfileDescription(profile).split()).replace(",", "") or "a profile without a name"
        takes = _SPACES.get(profile.profile.xcolor_space.strip(), "")
        if takes != kind and (kind, takes) != ("L", "RGB"):
            return Profile(f"{name}, of another kind than its picture: ignored", kind)
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), takes, "RGB")
    except (OSError, ValueError, ImageCms.PyCMSError):
        return Profile(f"{name}, ignored", kind)
    if kind == "CMYK":
        return Profile(f"{name}, to sRGB", takes, transform, is_like_srgb=False)
    off = [_off(transform.apply(colours.convert(takes)), colours) for colours in _probes(kind)]
    if max(off) <= 1:
        return Profile(f"{name}, as it is", takes)
    return Profile(f"{name}, to sRGB", takes, transform, is_like_srgb=off[0] <= _LIKE_SRGB)


def _probes(kind: str) -> list[Image.Image]:
    """All grays, and where there are colours, a grid of them."""
    grays = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    axis = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(1, -1, 3)
    return [grays.convert("RGB"), Image.fromarray(grid)] if kind == "RGB" else [grays]


def _off(seen: Image.Image, colours: Image.Image) -> int:
    return int(np.abs(np.asarray(seen).astype(int) - np.asarray(colours.convert("RGB")).astype(int)).max())
