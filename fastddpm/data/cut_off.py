"""Pictures that lose much when they are cut to the network's aspect."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import islice

import numpy as np

from fastddpm.data.decode import decode, inspect
from fastddpm.data.fit import Fit
from fastddpm.data.opening import BadImage
from fastddpm.data.sources import Picture

MUCH = 0.25
"""share of a picture"""
_NUM_SHOWN, _LOOKED_THROUGH = 5, 20_000


def cut_off(pictures: Iterable[Picture], fit: Fit, size: tuple[int, int]) -> np.ndarray:
    """The first few pictures that lose more than a quarter, whole, as large as they fit into `size`, (H, W); what is
    cut off is dark.

    Returns: (n, C, H, W), uint8, of at most five; none of those beyond the first 20,000.
    """
    whole, shown = replace(fit, size=size, way="pad", center_crop=None), np.zeros((0, fit.channels, *size), np.uint8)
    for picture in islice(pictures, _LOOKED_THROUGH):
        with suppress(BadImage):  # it is named elsewhere
            sides = inspect(picture.open, fit.meaning).size
            if fit.place(sides).lost > MUCH:
                pixels, at = decode(picture.open, whole)[0], whole.place(sides)
                seen, (down, across) = fit.place(sides).cut, at.scale
                top, left = round(at.shown.top + seen.top / down), round(at.shown.left + seen.left / across)
                rows = slice(top, top + round(seen.height / down))
                columns = slice(left, left + round(seen.width / across))
                dark = pixels // 3
                dark[:, rows, columns] = pixels[:, rows, columns]
                shown = np.concatenate([shown, dark[None]])
        if len(shown) == _NUM_SHOWN:
            break
    return shown
