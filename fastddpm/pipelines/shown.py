"""Outputs that show themselves as pictures where a notebook meets them."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from diffusers import ImagePipelineOutput


class Shown:
    """An output with `images`: as the last line of a notebook's cell it is their grid."""

    images: Any

    def _repr_png_(self) -> bytes | None:
        """The grid as a PNG; None of images that are no PIL images."""
        if not isinstance(self.images, list) or not self.images:
            return None
        from fastddpm.report.figures import grid  # takes a moment: only when something is shown

        arrays = [np.asarray(image) for image in self.images]
        shown = io.BytesIO()
        grid(np.stack([a[None] if a.ndim == 2 else a.transpose(2, 0, 1) for a in arrays])).save(shown, format="PNG")
        return shown.getvalue()


@dataclass
class SampleOutput(ImagePipelineOutput, Shown):
    """`images`: as diffusers' own."""
