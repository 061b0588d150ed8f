"""The images that new ones are made from, and the images that the model was trained on."""

import sys
from pathlib import Path

import numpy as np
from accelerate import PartialState

from fastddpm.data.labelled import LabelledImages, read_labelled
from fastddpm.training.copies import Originals
from fastddpm.verbs.augment.request import AugmentRequest
from fastddpm.verbs.evaluate.sets import SPLITS, choose


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


def originals_of(model: str, image_shape: tuple[int, int, int]) -> Originals | str:
    """The training images of a run, as far as its folder still leads to them; else why not."""
    if not (Path(model) / "config.yaml").exists():
        return f"{model} is no run folder: it has no config.yaml"
    with PartialState().main_process_first():
        try:  # in here: whoever left by an error would not be waited for by the others
            return Originals.of_folder(Path(model), image_shape, PartialState().device)
        except (ValueError, OSError) as error:
            return f"the training images of {model} cannot be read: {error}"


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
