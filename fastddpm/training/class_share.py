"""The share of samples that look like their class, by the nearest labelled images of the run: nothing is trained."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastddpm.data import DeviceImages, center_crop
from fastddpm.training.draw import pipeline_of
from fastddpm.training.near_copies import some_ids
from fastddpm.training.run import Run

NEIGHBOURS = 5
"""training images that have to agree"""
MIN_SHARE = 0.5
"""a share of real images, to say anything of samples: pixels tell these classes apart"""
MIN_IMAGES, MAX_IMAGES, MAX_SIDE, NUM_REALS = 1_000, 5_000, 64, 500
"""training images compared with, their pixels a side, and real images"""


def class_share(run: Run, samples: np.ndarray) -> dict[str, Any] | None:
    """The share of samples, and of real images, whose nearest training images are all of one class: of the one that was
    asked for, or if the model knows no classes, of any. A row of metrics.jsonl.

    Args:
        samples: (N, C, H, W), uint8, of the seeds from `sample.seed` on.
    Returns: None: the images have no labels, are few or large, or pixels do not tell their classes apart.
    """
    names = run.splits.train.source.label_names
    if names is None or len(names) < 2 or len(run.images) < MIN_IMAGES or max(samples.shape[2:]) > MAX_SIDE:
        return None

    def labelled(images: DeviceImages, ids: Tensor) -> tuple[Tensor, Tensor]:
        pixels, labels = images.gather(ids)
        assert labels is not None
        return center_crop(pixels, run.config.train.random_crop), labels

    ids = some_ids(len(run.images), MAX_IMAGES, run.config.seed)
    if run.held_out is not None and len(run.held_out) >= NUM_REALS // 5:
        reals = labelled(run.held_out, some_ids(len(run.held_out), NUM_REALS, run.config.seed))
    else:
        ids, rest = ids[:-NUM_REALS], ids[-NUM_REALS:]
        reals = labelled(run.images, rest)
    known, classes = labelled(run.images, ids)
    num_classes, first = pipeline_of(run).num_classes, run.config.sample.seed
    asked = torch.arange(first, first + len(samples)) % (num_classes or 1)

    def share(images: Tensor, labels: Tensor) -> float:
        nearest = torch.cdist(images.flatten(1).float(), known.flatten(1).float()).topk(NEIGHBOURS, largest=False)
        found = classes[nearest.indices]
        wanted = found[:, 0] if num_classes is None else labels.to(found.device)
        return float((found == wanted[:, None]).all(1).double().mean())

    of_reals = share(*reals)
    return None if of_reals < MIN_SHARE else {
        "class_share": share(torch.from_numpy(samples).to(known.device), asked),
        "class_share_of_reals": of_reals,
        "class_num_samples": len(samples),
        "class_num_compared": len(ids),
        "class_num_reals": len(reals[0]),
        "class_is_asked_for": num_classes is not None,
    }  # fmt: skip
