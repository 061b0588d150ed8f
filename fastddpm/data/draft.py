"""Large JPEGs decoded at a half, a quarter or an eighth of their size, where less than that is kept of them.

libjpeg takes the mean of each block of 2, 4 or 8 pixels a side while it decodes, so most of the work is never done.
"""

from dataclasses import dataclass, replace
from math import ceil, floor

from PIL import ExifTags, Image

from fastddpm.data.fit import Box, Fit

_LEAST = 3
"""decoded pixels for each that is kept, a side: photos and noise are 0.6 levels off their full decoding at most, with 2
0.8 and 2.5"""
_SCALES = (8, 4, 2)


@dataclass(frozen=True)
class Draft:
    """Place of a picture's pixels in what was decoded of it."""

    scale: int = 1
    """pixels of the picture for each that was decoded, a side"""
    left: float = 0
    """part of a decoded column that is padding, at the left once the picture stands upright"""
    top: float = 0

    def fitted(self, image: Image.Image, fit: Fit, size: tuple[int, int]) -> Image.Image:
        """Fit what was decoded, upright and of mode L or RGB, cut and scaled as the whole picture would be.

        Args:
            size: (width, height) of the whole picture.
        """
        if self.scale == 1:
            return fit(image)
        whole = replace(fit, random_crop=None)
        seen, shown = whole.place(size).cut, whole.place(size).shown
        left, top, right, bottom = self._edges(replace(whole, size=None).place(size).cut)
        first = floor(left), floor(top)
        image = image.crop((*first, ceil(right), ceil(bottom)))  # the filter does not reach beyond data.center_crop
        left, top, right, bottom = self._edges(seen)
        box = left - first[0], top - first[1], right - first[0], bottom - first[1]
        image = image.resize((int(shown.width), int(shown.height)), Image.Resampling.BICUBIC, box)
        return replace(fit, center_crop=None)(image)

    def _edges(self, box: Box) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in decoded pixels, of a box in the upright picture's."""
        left, top = box.left / self.scale + self.left, box.top / self.scale + self.top
        return left, top, left + box.width / self.scale, top + box.height / self.scale


def drafted(image: Image.Image, fit: Fit, size: tuple[int, int]) -> Draft:
    """Have a JPEG that is open, and not decoded yet, decoded at a reduced scale, if it may.

    Args:
        size: (width, height), upright.
    """
    if image.format not in ("JPEG", "MPO") or fit.size is None:
        return Draft()
    shrinks = min(replace(fit, random_crop=None).place(size).scale)
    scale = next((scale for scale in _SCALES if shrinks >= _LEAST * scale), 1)
    if scale == 1:
        return Draft()
    turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    width, height = image.size
    if image.draft(None, (width // scale, height // scale)) is None:
        return Draft()
    scale = round(width / image.width)
    right, bottom = image.width - width / scale, image.height - height / scale
    if turned in (5, 6, 7, 8):  # its first row becomes a column
        right, bottom = bottom, right
    return Draft(scale, right if turned in (2, 3, 6, 7) else 0, bottom if turned in (3, 4, 7, 8) else 0)
