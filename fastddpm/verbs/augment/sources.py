"""The images that new ones are made from, and the images that the model was trained on."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from fastddpm.config import load_config
from fastddpm.data.labelled import LabelledImages, read_labelled
from fastddpm.measures.nearest import TrainingImages
from fastddpm.verbs.augment.request import AugmentRequest
from fastddpm.verbs.evaluate.sets import SPLITS, choose
from fastddpm.verbs.sample.series import digest

MAX_COMPARED = 50_000
"""training images that new ones are compared with; of more, a part drawn at random"""
MAX_REALS = 256
"""real images that say how near is ordinary"""


def read_data(request: AugmentRequest, image_shape: tuple[int, int, int]) -> LabelledImages:
    """The labelled images of `request.data`: any labelled source, or RUN:train or RUN:held_out.

    Raises: ValueError: what `read_labelled` raises; a run that was trained without labels.
    """
    run, colon, split = request.data.rpartition(":")
    if not (colon and split in SPLITS and (Path(run) / "config.yaml").exists()):
        columns = {name: getattr(request, name) for name in ("subset", "image_column", "label_column")}
        return read_labelled(request.data, image_shape, split=request.split, resize=request.resize, **columns)
    for name in ("split", "subset", "image_column", "label_column", "resize"):
        if getattr(request, name):
            raise ValueError(f"got {name} with {request.data}, whose images are read as {run} read them; leave it out")
    with PartialState().main_process_first():  # the source may have to be read in
        chosen = choose(request.data, sys.maxsize, seed=0, image_shape=image_shape)
    if chosen.labels is None or chosen.label_names is None:
        raise ValueError(f"{request.data} has no labels: {run} was trained without any; give a labelled source")
    names = [f"{split}, image {place}" for place in range(len(chosen.images))]
    return LabelledImages(np.ascontiguousarray(chosen.images), chosen.labels, chosen.label_names, names)


@dataclass(frozen=True, eq=False)
class Training:
    """What a run was trained on; of a model that is no run, or whose images are gone, nothing."""

    pixels: np.ndarray | None
    """(N, C, H, W), uint8"""
    held_out: np.ndarray | None
    """(M, C, H, W), uint8; None: there are none"""
    flips: tuple[int, ...]
    """axes that training mirrors"""
    label_names: tuple[str, ...] | None
    facts: dict[str, Any]
    """plain JSON values: source, how many; or why nothing is known"""


def training_of(model: str, image_shape: tuple[int, int, int]) -> Training:
    """The training images of a run, as far as its folder still leads to them."""
    config_file = Path(model) / "config.yaml"
    if not config_file.exists():
        return _unknown(f"{model} is no run folder: it has no config.yaml")
    with PartialState().main_process_first():
        try:  # in here: whoever left by an error would not be waited for by the others
            config = load_config(config_file)
            chosen = choose(f"{model}:train", MAX_COMPARED, seed=0, image_shape=image_shape)
            held_out = choose(f"{model}:held_out", MAX_REALS, seed=0) if config.data.num_held_out else None
        except (ValueError, OSError) as error:
            return _unknown(f"the training images of {model} cannot be read: {error}")
    flips = ((-1, config.train.horizontal_flip), (-2, config.train.vertical_flip))
    return Training(
        pixels=np.ascontiguousarray(chosen.images),
        held_out=None if held_out is None else np.ascontiguousarray(held_out.images),
        flips=tuple(axis for axis, on in flips if on),
        label_names=chosen.label_names,
        facts={**chosen.facts, "digest": digest(chosen.images)},
    )


def _unknown(why: str) -> Training:
    return Training(None, None, (), None, {"unknown": why})


def to_compare(pixels: np.ndarray, training: Training) -> TrainingImages:
    """Images to look for copies of, with what a run has to say of it: held-out images, mirrors.

    Args:
        pixels: (N, C, H, W), uint8.
    """
    everything, device, ids = torch.from_numpy(pixels), PartialState().device, torch.arange(len(pixels))
    reals = None if training.held_out is None else torch.from_numpy(training.held_out).to(device)
    options: dict[str, Any] = {"flips": training.flips, "max_reals": MAX_REALS}

    def gather(ids: Tensor) -> Tensor:
        return everything[ids].to(device)

    found = TrainingImages(gather, ids, reals, **options)
    if found.threshold is None and reals is not None:  # the held-out ones are among them
        return TrainingImages(gather, ids, None, **options)
    return found


def classes_of(
    names: tuple[str, ...], labels: np.ndarray, known: tuple[str, ...] | None, count: int, who: str
) -> np.ndarray:
    """The class that each label of a data set has for a model or a classifier: by its name, or where it knows no
    names, by its number.

    Args:
        names: of the data set's labels.
        labels: (N,), int64: those that there are.
        known: names of the classes; None: they have none.
        count: how many classes.
        who: knows them, for the message.
    Returns: (len(names),), int64; of labels that there are none of, -1 if they are not known.
    Raises: ValueError: a label that is not known.
    """
    if known is None:
        found = [label if label < count else -1 for label in range(len(names))]
        wanted = f"0 to {count - 1}"
    else:
        found = [known.index(name) if name in known else -1 for name in names]
        wanted = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    strange = [names[label] for label in np.unique(labels) if found[label] < 0]
    if strange:
        raise ValueError(
            f"the data have the label(s) {', '.join(strange[:10])}, which {who} does not know; it knows {wanted}: "
            "leave those images out, or rename their classes"
        )
    return np.array(found, dtype=np.int64)
