"""What is said of each image that was drawn, and which images are dropped for it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from fastddpm.data.labelled import LabelledImages
from fastddpm.measures.classifier import Classifier
from fastddpm.measures.features import load_judge
from fastddpm.measures.nearest import TrainingImages
from fastddpm.verbs.augment.sources import Training, classes_of, to_compare

LABEL_LOST, COPY = "label_lost", "copy"
REASONS = (LABEL_LOST, COPY)
"""for which an image is dropped; the first that holds counts"""


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
        """From a file of `fastddpm judge`.

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
        """How likely the classifier finds an image's label, and whether it still has it.

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


@dataclass(frozen=True, eq=False)
class CopyFilter:
    """Drops near-copies of a training image or of an image of the data: what is closer to one of them than 95 % of real
    images are, by the rule with which a run looks for copies."""

    images: TrainingImages
    threshold: float
    pixels: np.ndarray
    """(N, C, H, W), uint8: what the ids of `images` mean"""

    @classmethod
    def of(cls, training: Training, data: LabelledImages) -> "CopyFilter":
        """Raises: ValueError: too few images to tell."""
        known = [] if training.pixels is None else [training.pixels]
        pixels = np.concatenate([*known, data.images])
        images = to_compare(pixels, training)
        if images.threshold is None:
            raise ValueError(
                f"drop_copies cannot tell copies with {len(images)} different images to compare with; leave "
                "--drop_copies out"
            )
        return cls(images, images.threshold, pixels)


@dataclass(eq=False)
class Seen:
    """What is known of an image once it was looked at."""

    row: dict[str, Any]
    """what its row of metadata says further"""
    reason: str | None = None
    """why it is dropped; None: it is kept"""
    original: np.ndarray | None = None
    """(C, H, W), uint8: of a near-copy, the image that it is near to"""


@dataclass(frozen=True, eq=False)
class Findings:
    """What is looked at: distances to the nearest training image, and the filters that were asked for."""

    training_images: TrainingImages | None
    digest: str | None
    """of the training images"""
    labels: LabelFilter | None
    copies: CopyFilter | None

    def settings(self) -> dict[str, Any]:
        """What they decide, as plain JSON values."""
        return {
            "judge": None if self.labels is None else self.labels.sha256,
            "drop_copies": self.copies is not None,
            "training_images": self.digest,
        }

    def facts(self) -> dict[str, Any]:
        """Of the record, as plain JSON values."""
        if self.copies is None:
            return {}
        found = self.copies.images
        return {
            "copies": {"num_compared": len(found), "reals": found.reals, "threshold": round(self.copies.threshold, 4)}
        }

    def look(self, images: np.ndarray, labels: Sequence[int], others: Sequence[int]) -> list[Seen]:
        """Look at images.

        Args: as of `LabelFilter.probabilities`.
        Returns: B.
        """
        seen = [Seen({"nearest_distance": None, "nearest_closeness": None}) for _ in images]
        queries = torch.from_numpy(images).to(PartialState().device)
        if self.training_images is not None:
            found = self.training_images.neighbours(queries)
            for one, distance, closeness in zip(seen, found.distances.tolist(), found.closeness.tolist(), strict=True):
                one.row |= {"nearest_distance": round(distance, 3), "nearest_closeness": round(closeness, 4)}
        if self.copies is not None:
            found = self.copies.images.neighbours(queries)
            for i in (found.closeness < self.copies.threshold).nonzero()[:, 0].tolist():
                seen[i].reason, seen[i].original = COPY, self.copies.pixels[int(found.ids[i])]
        if self.labels is not None:
            likely, keeps = self.labels.probabilities(images, labels, others)
            for one, probability, keep in zip(seen, likely.tolist(), keeps.tolist(), strict=True):
                one.row["label_probability"] = round(probability, 4)
                if not keep:
                    one.reason, one.original = LABEL_LOST, None
        return seen
