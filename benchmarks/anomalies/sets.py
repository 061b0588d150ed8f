"""Which images train, which calibrate, and which are kept for the tests: fixed by numpy's seed 0, not by a run's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.colour_set import read_images, write_splits
from fastddpm.config import DataConfig
from fastddpm.data import ingest
from fastddpm.verbs.detect.request import DetectRequest

NUM_DIGITS = 10


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many images, and how long each network trains."""

    train: int = 4000
    """digits of each class that are trained on"""
    calibration: int = 200
    """held-out normal images that thresholds and scales come from"""
    colour_side: int = 64
    """pixels of the colour pictures"""
    colour_splits: tuple[int, int] = (200, 400)
    """colour pictures for calibration and for tests; the others are trained on"""
    all_seen: int = 40_000
    """images seen by the model of all digits"""
    class_seen: int = 16_000
    """by the model of one digit, and by that of the normals and a few rare ones"""
    colour_seen: int = 40_000
    """by the colour model"""
    widths: tuple[int, ...] = (32, 64)
    """channels of the digits' network"""
    colour_widths: tuple[int, ...] = (32, 64, 128)
    """of the colour network"""
    groups: int = 8
    """of the group norms"""
    judge_steps: int = 150
    """of the networks that make features"""
    num_samples: int = 16
    """drawn at the end of a run"""
    sample_steps: int = 50
    """of each"""
    known: int = DetectRequest.num_known
    """training images that it compares with too, as `fastddpm detect` does"""
    test_normals: int = 100
    """normal images of a test, and images with a defect of each kind"""
    test_others: int = 30
    """anomalies of each other digit"""
    resamples: int = 200
    """of the bootstrap over images"""
    rare_normals: int = 3000
    """normal images beside the rare ones"""
    rare_made: int = 200
    """images made from the rare ones in each way"""
    rare_steps: int = 10
    """of the solver that makes them"""
    rare_detector_steps: int = 250
    """of each detector"""
    rare_batch: int = 32
    """of them, half of it rare"""
    rare_seeds: int = 2
    """detectors trained in each way"""
    rare_tests: int = 60
    """unseen images of each normal digit, and of the rare one as many as of all those"""


TINY = Sizes(
    train=40, calibration=20, colour_side=32, colour_splits=(20, 24), all_seen=64, class_seen=32, colour_seen=32,
    widths=(8, 32), colour_widths=(8, 8, 32), groups=4, num_samples=4, sample_steps=2, judge_steps=2,
    test_normals=6, test_others=1, resamples=5, known=10,
    rare_normals=45, rare_made=8, rare_steps=2, rare_detector_steps=3, rare_batch=16, rare_seeds=1, rare_tests=4,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Parts:
    """The images of a class, or of a set without classes, in three parts; each (N, C, H, W), uint8."""

    train: np.ndarray
    calibration: np.ndarray
    test: np.ndarray


def digits(mnist: Path, sizes: Sizes) -> list[Parts]:
    """The ten digits.

    Args:
        mnist: an IDX file of images, its labels beside it.
    Raises: ValueError: no labels, or too few of a digit.
    """
    found = ingest(DataConfig(source=str(mnist)))
    if found.labels is None:
        raise ValueError(f"{mnist} has no labels beside it; put train-labels-idx1-ubyte[.gz] there")
    labels = np.asarray(found.labels)
    return [_digit(found.images, np.flatnonzero(labels == digit), digit, sizes) for digit in range(NUM_DIGITS)]


def _digit(images: np.ndarray, places: np.ndarray, digit: int, sizes: Sizes) -> Parts:
    first, second = sizes.train, sizes.train + sizes.calibration
    if len(places) < second + sizes.test_normals:
        raise ValueError(
            f"got {len(places)} images of digit {digit}; {sizes.train} train, {sizes.calibration} calibrate and "
            f"{sizes.test_normals} test: give a larger set"
        )
    order = np.random.default_rng([0, digit]).permutation(places)
    return Parts(*(np.asarray(images[np.sort(part)]) for part in np.split(order, [first, second])))


def colours(pictures: Path, work: Path, sizes: Sizes) -> Parts:
    """The colour pictures, split once into `work`/colour-set.

    Args:
        pictures: a folder or a zip; see `benchmarks.colour_set`.
    """
    folder = colour_folder(work)
    if not (folder / "train").is_dir():
        calibration, test = sizes.colour_splits
        write_splits(pictures, folder, sizes.colour_side, {"calibration": calibration, "test": test})
    return Parts(*(read_images(folder / name) for name in ("train", "calibration", "test")))


def colour_folder(work: Path) -> Path:
    """Where the parts of the colour pictures are."""
    return work / "colour-set"


def rare_set(parts: list[Parts], rare: int, count: int, sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """The training images of a detector of a rare digit.

    Args:
        rare: the digit.
        count: how many of it are known; fewer are the first ones of more.
    Returns: normal images, as many of each other digit, and the rare ones; each (N, 1, 28, 28), uint8.
    """
    each = -(-sizes.rare_normals // (NUM_DIGITS - 1))
    order = np.random.default_rng([1, rare]).permutation(len(parts[rare].train))
    normals = [part.train[:each] for digit, part in enumerate(parts) if digit != rare]
    return np.concatenate(normals)[: sizes.rare_normals], parts[rare].train[order[:count]]


def together(parts: list[Parts]) -> Parts:
    """Those of all classes, mixed but for the training images."""
    mixed = [np.concatenate([getattr(part, name) for part in parts]) for name in ("train", "calibration", "test")]
    order = np.random.default_rng(2)
    return Parts(mixed[0], *(order.permutation(images) for images in mixed[1:]))
