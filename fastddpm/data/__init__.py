"""Images: any source is read, checked and stored as uint8 once; later runs map that store."""

from fastddpm.data.decode import BadImage
from fastddpm.data.device import DeviceImages
from fastddpm.data.ingest import ImageSet, ingest
from fastddpm.data.pixels import center_crop, crop, to_uint8, to_unit_range
from fastddpm.data.splits import Splits, Subset, load_splits

__all__ = [
    "BadImage",
    "DeviceImages",
    "ImageSet",
    "Splits",
    "Subset",
    "center_crop",
    "crop",
    "ingest",
    "load_splits",
    "to_uint8",
    "to_unit_range",
]
