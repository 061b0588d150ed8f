"""Summary for people of what was read in: counts, and the images to show."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from fastddpm.data.ingest import CUT_OFF
from fastddpm.data.sources import hub_dataset
from fastddpm.data.splits import Splits, Subset
from fastddpm.process import counted

GRAY_IN_COLOUR = "every image is gray, and is kept with three channels: --data.channels 1 makes a quicker model of them"
CUT = "images lose more than a quarter to the cut, see data.png; --data.fit pad puts bars beside whole ones instead"
_COLUMNS = 10
_SHOWN_CLASSES = 20
_SHOWN_SIDE = 128
_LOOKED_THROUGH = 5000


def summary(splits: Splits) -> dict[str, Any]:
    """Plain facts of the images of a run, as JSON values."""
    facts = splits.train.source.facts
    names = splits.train.source.label_names
    return {
        "label_names": names and list(names),
        **{name: facts[name] for name in ("source", "layout")},
        "hub_dataset": hub_dataset(facts["source"]),
        "num_images": facts["num_images"] + facts["num_duplicates"],
        "num_duplicates": facts["num_duplicates"],
        "num_duplicates_labelled_otherwise": facts["num_label_conflicts"],
        "num_train": len(splits.train),
        "num_held_out": len(splits.held_out),
        "num_copies_of_held_out_left_out": splits.num_copies_left_out,
        "num_together": splits.num_together,
        "num_held_out_near_trained": splits.num_parted,
        "splits": {name: stop - start for name, (start, stop) in facts["splits"].items()},
        "other_splits": facts["other_splits"],
        "stored_as": facts["image_shape"],
        **{name: facts[name] for name in ("sizes", "num_sizes", "num_upscaled_over_2x")},
        "fit": facts["settings"]["fit"],
        **{name: facts[name] for name in ("padding", "num_cut_over_quarter", "modes")},
        "profiles": facts.get("profiles", {}),
        "is_gray_in_colour": facts.get("is_gray_in_colour", False),
        "no_labels": facts["no_labels"],
        "labels": splits.train.count_classes() or {},
        **{name: facts[name] for name in ("bad_files", "other_files")},
    }


def summary_lines(found: dict[str, Any]) -> list[str]:
    """The same in a few lines."""
    channels, height, width = found["stored_as"]
    sizes = ", ".join(f"{size} ({count:,})" for size, count in list(found["sizes"].items())[:5])
    lines = [
        f"{found['source']}: {found['num_images']:,} images, stored as {width}x{height} with "
        f"{counted(channels, 'channel')}",
        *([f"  {found['layout']}"] if found["layout"] else []),
        f"  training {found['num_train']:,}, held out {found['num_held_out']:,}",
        f"  sizes: {sizes}" + (f", and {found['num_sizes'] - 5:,} others" if found["num_sizes"] > 5 else ""),
        f"  modes: {', '.join(f'{mode} ({count:,})' for mode, count in found['modes'].items())}",
        f"  copies of another image: {found['num_duplicates']:,}",
    ]
    if found["profiles"]:
        lines.append(f"  colour profiles: {'; '.join(f'{name} ({n:,})' for name, n in found['profiles'].items())}")
    if found["labels"]:
        counts = [f"{name} ({count:,})" for name, count in list(found["labels"].items())[:_SHOWN_CLASSES]]
        more = len(found["labels"]) - len(counts)
        others = f", and {more} others" if more > 0 else ""
        lines.append(f"  {counted(len(found['labels']), 'label')}: {', '.join(counts)}{others}")
    notes = {
        "num_duplicates_labelled_otherwise": "copies have another label than the image they are of",
        "num_copies_of_held_out_left_out": "copies of held-out images are left out of training",
        "num_together": "images belong together with others, and stay on one side of the split (data.group)",
        "num_held_out_near_trained": "held-out images have near-copies among those that are trained on",
        "num_upscaled_over_2x": "images are enlarged to more than twice their size",
        "num_cut_over_quarter": CUT,
    }
    lines += [f"  {found[name]:,} {text}" for name, text in notes.items() if found[name]]
    lines += [f"  {counted(len(found[name]), 'file')} {text}" for name, text in _LISTS.items() if found[name]]
    if found["is_gray_in_colour"]:
        lines.append(f"  {GRAY_IN_COLOUR}")
    if found["other_splits"]:
        lines.append(f"  splits not read: {', '.join(found['other_splits'])}")
    return lines


_LISTS = {"bad_files": "could not be used", "other_files": "of other kinds, or not listed, left out"}


def contact_sheet(subset: Subset) -> list[tuple[str, np.ndarray]]:
    """Images to look at: rows of ten, (name, (n, C, H, W) uint8); one row per class up to twenty. Images
    of more than 128 pixels a side are made smaller. A last row has some that lose more than a quarter, if any do."""
    names = subset.source.label_names
    places = torch.arange(min(len(subset), _LOOKED_THROUGH))
    labels = subset.labels_of(places)
    if names is None or labels is None or len(names) > _SHOWN_CLASSES:
        rows = [("", places[first : first + _COLUMNS]) for first in range(0, min(len(places), 100), _COLUMNS)]
    else:
        rows = [(name, places[labels == label][:_COLUMNS]) for label, name in enumerate(names)]
    images = subset.source.images
    shown = [(name, images[subset.indices_of(row).numpy()]) for name, row in rows if len(row)]
    if (cut := subset.source.folder / CUT_OFF).exists():
        count = subset.source.facts["num_cut_over_quarter"]
        shown.append((f"{count:,} lose over a\nquarter (dark)", np.load(cut)))
    return [(name, _shrunk(row)) for name, row in shown]


def _shrunk(images: np.ndarray) -> np.ndarray:
    """Means of square blocks, so that no side is longer than `_SHOWN_SIDE`."""
    height, width = images.shape[2:]
    factor = min(-(-max(height, width) // _SHOWN_SIDE), height, width)
    if factor == 1:
        return images
    return functional.avg_pool2d(torch.from_numpy(images).float(), factor).round().byte().numpy()
