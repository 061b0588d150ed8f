"""The images that new ones are made from, and the images that the model was trained on."""

from pathlib import Path

import numpy as np
from accelerate import PartialState

from fastddpm.training.near_copies import Originals


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
            f"{who} does not know {', '.join(strange[:10])}, which the data have; it knows {wanted}: "
            "leave those images out, or rename their classes"
        )
    return np.array(found, dtype=np.int64)
