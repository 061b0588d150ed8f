"""Filters: what is said of each image that was drawn, and which images are dropped for it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from fastddpm.data.named_pictures import LabelledImages
from fastddpm.measures.classifier import Classifier
from fastddpm.measures.features import load_judge
from fastddpm.process import some
from fastddpm.training.near_copies import Originals
from fastddpm.verbs.sample.series import digest

LABEL_LOST, COPY = "label_lost", "copy"
REASONS = (LABEL_LOST, COPY)
"""reasons for which an image is dropped; the first that holds counts"""


@dataclass(frozen=True, eq=False)
class LabelFilter:
    """Drops what a classifier no longer gives its label. Of a blend of two classes it is asked which of the two it is:
    that of the larger part is kept."""

    judge: Classifier
    classes: np.ndarray
    """(L,), int64: the classifier's class for each label of the data"""
    sha256: str

    @classmethod
    def of(
        cls, path: Path, data: LabelledImages, image_shape: tuple[int, int, int], device: torch.device
    ) -> "LabelFilter":
        """Filter by a file of `fastddpm judge`.

        Raises: ValueError: no classifier, or one of other images or other labels.
        """
        judge = load_judge(path)
        if not isinstance(judge, Classifier):
            raise ValueError(f"{path} is {judge.description}, which knows no labels; wanted a classifier: make one "
                             "with `fastddpm judge` from labelled images")  # fmt: skip
        if judge.image_shape != image_shape:
            raise ValueError(
                f"{path} judges images of {judge.image_shape} (channels, height, width), the model makes "
                f"{image_shape}; make a judge from images of that shape"
            )
        names = judge.facts.get("label_names")
        known = None if names is None else tuple(names)
        classes = classes_of(data.label_names, data.labels, known, judge.num_classes, str(path))
        return cls(judge.to(device), classes, hashlib.sha256(path.read_bytes()).hexdigest())

    def probabilities(
        self, images: np.ndarray, labels: Sequence[int], others: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probability of an image's label by the classifier, and true where it still has it.

        Args:
            images: (B, C, H, W), uint8.
            labels: of the images; of blends, of the larger part.
            others: of the smaller part of a blend; where there is none, the label itself.
        Returns: (B,) float64 and (B,) bool.
        """
        found = self.judge.probabilities(torch.from_numpy(images)).cpu().double().numpy()
        rows, own, other = np.arange(len(images)), self.classes[list(labels)], self.classes[list(others)]
        is_best = found.argmax(1) == own
        wins = found[rows, own] >= found[rows, other]
        return found[rows, own], np.where(own == other, is_best, wins)


def copies_of(originals: Originals | None, data: LabelledImages, device: torch.device) -> Originals:
    """Originals of near-copies: training images, as far as they are known, and images of the data.

    Raises: ValueError: too few images to tell.
    """
    if originals is None:
        found = Originals.of_images(data.images, None, device)
    else:
        found = originals.held(np.concatenate([originals.pixels, data.images]), device)
    if found.compared.threshold is None:
        raise ValueError(
            f"drop_copies cannot tell copies with {len(found.compared)} different images to compare with; leave "
            "--drop_copies out"
        )
    return found


@dataclass(eq=False)
class Filtered:
    """Facts about an image once it was looked at."""

    row: dict[str, Any]
    """further entries of its row of metadata"""
    reason: str | None = None
    """why it is dropped; None: it is kept"""
    original: np.ndarray | None = None
    """(C, H, W), uint8: for a near-copy, the image that it is near to"""


@dataclass(frozen=True, eq=False)
class Filters:
    """Looks at each image: distances to the nearest training image, and the filters that were asked for."""

    originals: Originals | None
    """the training images; None: they are not known"""
    labels: LabelFilter | None
    copies: Originals | None
    """drops what is closer to one of these than 95 % of real images are; None: nothing"""

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Names of the classes that the model was trained on; None: they are not known."""
        return None if self.originals is None else self.originals.label_names

    def settings(self) -> dict[str, Any]:
        """Settings that decide, as plain JSON values."""
        return {
            "judge": None if self.labels is None else self.labels.sha256,
            "drop_copies": self.copies is not None,
            "training_images": None if self.originals is None else digest(self.originals.pixels),
        }

    def facts(self) -> dict[str, Any]:
        """Facts for the record, as plain JSON values."""
        if self.copies is None:
            return {}
        found = self.copies.compared
        facts = {"num_compared": len(found), "reals": found.reals, "threshold": round(found.threshold or 0.0, 4)}
        return {"copies": {**facts, "mirrored": self.copies.mirrored}}

    def look(self, images: np.ndarray, labels: Sequence[int], others: Sequence[int]) -> list[Filtered]:
        """Look at images.

        Args: as of `LabelFilter.probabilities`.
        Returns: B.
        """
        seen = [Filtered({"nearest_distance": None, "nearest_closeness": None}) for _ in images]
        queries = torch.from_numpy(images).to(PartialState().device)
        if self.originals is not None:
            found = self.originals.compared.neighbours(queries)
            for one, distance, closeness in zip(seen, found.distances.tolist(), found.closeness.tolist(), strict=True):
                one.row |= {"nearest_distance": round(distance, 3), "nearest_closeness": round(closeness, 4)}
        if self.copies is not None:
            found = self.copies.compared.neighbours(queries)
            for i in (found.closeness < (self.copies.compared.threshold or 0.0)).nonzero()[:, 0].tolist():
                seen[i].reason, seen[i].original = COPY, self.copies.pixels[int(found.ids[i])]
        if self.labels is not None:
            likely, keeps = self.labels.probabilities(images, labels, others)
            for one, probability, keep in zip(seen, likely.tolist(), keeps.tolist(), strict=True):
                one.row["label_probability"] = round(probability, 4)
                if not keep:
                    one.reason, one.original = LABEL_LOST, None
        return seen


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
        wanted = some(known, 20)
    strange = [names[label] for label in np.unique(labels) if found[label] < 0]
    if strange:
        raise ValueError(
            f"{who} does not know {', '.join(strange[:10])}, which the data have; it knows {wanted}: "
            "leave those images out, or rename their classes"
        )
    return np.array(found, dtype=np.int64)
