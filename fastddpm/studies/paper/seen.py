"""What the networks that judge see in all images: computed on all processes, before one of them measures."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fastddpm.studies.paper.drawings import Drawings
from fastddpm.verbs.evaluate.spaces import FeatureSpace


@dataclass(frozen=True)
class Seen:
    """Features, (..., D) float32, and classes, (...) int64, of `Drawings`."""

    reals: Tensor
    samples: Tensor
    of_dcgan: Tensor
    from_data: Tensor
    dial: Tensor
    """(T, N, K, D)"""
    classes_of_inputs: Tensor | None
    """(N,), of the images that are varied; None: there are no labels to learn"""
    classes_of_dial: Tensor | None
    """(T, N, K)"""


def see(drawings: Drawings, of_reals: Tensor, space: FeatureSpace, classifier: FeatureSpace) -> Seen:
    """Look at everything; every process calls it.

    Args:
        of_reals: features of the reals.
        space: where distances are measured.
        classifier: knows classes, if it is one; may be the same.
    """
    drawn = drawings.dial.reshape(-1, *drawings.dial.shape[3:])
    counts = drawings.dial.shape[:3]

    def classes(images: np.ndarray) -> Tensor | None:
        return None if classifier.classes is None else classifier.classes(images)

    of_dial = classes(drawn)
    return Seen(
        reals=of_reals,
        samples=space.of(drawings.samples, "samples"),
        of_dcgan=space.of(drawings.of_dcgan, "samples of the DCGAN"),
        from_data=space.of(drawings.from_data, "images from data"),
        dial=space.of(drawn, "variations").unflatten(0, counts),
        classes_of_inputs=classes(drawings.reals[: counts[1]]),
        classes_of_dial=None if of_dial is None else of_dial.unflatten(0, counts),
    )
