"""From any source to checked uint8 images, and to batches on the device."""

from fastddpm.data.decode import BadFileError
from fastddpm.data.ingest import ImageSet, ingest
from fastddpm.data.pixels import to_uint8, to_unit_range
from fastddpm.data.splits import DeviceImages, Splits, Subset, load_splits

__all__ = [
    "BadFileError", "DeviceImages", "ImageSet", "Splits", "Subset", "ingest", "load_splits", "to_uint8",
    "to_unit_range",
]  # fmt: skip
