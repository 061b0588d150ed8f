"""Request of `fastddpm export`."""

from typing import Annotated, Literal

from pydantic import Field

from fastddpm.config.bounded_types import File, strict
from fastddpm.config.checks import MIN_NORMAL


@strict
class ExportRequest:
    """Export a model for a runtime without torch: the whole of a detection, from a picture to score and map, or the
    network alone. What is written gives torch's numbers on held-out pictures, or it is not written."""

    model: str
    """Run folder, saved pipeline, or id on the Hub."""
    out: File
    """Folder for the model, what it was compared with, and, of a detection, judge.py, which needs no torch."""
    to: Literal["onnx", "openvino"] = "onnx"
    """Runtime: onnx is onnxruntime's and others', openvino is Intel's."""
    calibration: File | None = None
    """calibration.safetensors of a detection by this model; null: the network alone is exported."""
    images: str | None = None
    """Pictures to compare torch's answers on, any data.source; null: RUN:held_out."""
    num_images: Annotated[int, Field(ge=MIN_NORMAL)] = 200
    """Maximum number of these."""
