"""Images: any source is read, checked and stored as uint8 once; later runs map that store."""

from fastddpm.data.augment import NUM_AMOUNTS, amounts_at, augment
from fastddpm.data.batches import Batches, DeviceImages
from fastddpm.data.ingest import ImageSet, ingest
from fastddpm.data.kept_pictures import KeptPictures, load_kept, splits_of_run
from fastddpm.data.opening import BadImage
from fastddpm.data.pixels import center_crop, crop, to_uint8, to_unit_range
from fastddpm.data.splits import Splits, Subset, load_splits
from fastddpm.data.summary import contact_sheet, summary, summary_lines
