"""Tables from accuracies: means and differences over seeds with 95 % intervals, and what they say in a word."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from fastddpm.process import counted

Condition = Literal["reals", "classic", "drawn", "both"]
"""images that are learnt from: (a), (b), (c), (d)"""
LETTERS: dict[Condition, str] = {"reals": "a", "classic": "b", "drawn": "c", "both": "d"}
COMPARED: tuple[tuple[Condition, Condition], ...] = (
    ("drawn", "reals"), ("both", "classic"), ("drawn", "classic"), ("both", "reals"), ("classic", "reals"),
)  # fmt: skip
"""differences of the tables: what drawn images add alone, what they add to classic augmentation, and the rest"""
PAYS, COSTS, UNCLEAR = "pays", "costs", "no difference shown"
LEVEL = 0.95


@dataclass(frozen=True)
class SeedMean:
    """A mean over seeds and its 95 % t-interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Accuracy:
    """One classifier."""

    size: int
    """labelled images"""
    repeat: int
    """number of the choice of labelled images"""
    condition: Condition
    kind: str | None
    """whose images were drawn: `own` or `all`; None: no one's"""
    start: int | None
    num: int | None
    """t and K of the drawn images"""
    accuracy: float
    """share of held-out images that it got right"""


@dataclass(frozen=True)
class Share:
    """Labels kept by drawn images at one t, with the main K."""

    size: int
    kind: str
    start: int
    share: float
    """share that a classifier takes for the label that they have"""


Key = tuple[int, int, Condition, str | None, int | None, int | None]


def key_of(row: Accuracy) -> Key:
    """Key of the classifier of a row."""
    return row.size, row.repeat, row.condition, row.kind, row.start, row.num


def estimate(values: Sequence[float]) -> SeedMean:
    """Mean and t-interval of independent values.

    Raises: ValueError: fewer than two.
    """
    if len(values) < 2:
        raise ValueError(f"got {counted(len(values), 'value')}; an interval wants at least two seeds")
    numbers = np.asarray(values, dtype=np.float64)
    mean, error = float(numbers.mean()), float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(numbers) - 1)) * error
    return SeedMean(mean, mean - half, mean + half)


def verdict(difference: SeedMean) -> str:
    """Verdict in a word: the interval lies above 0, below it, or on it."""
    if difference.low > 0:
        return PAYS
    return COSTS if difference.high < 0 else UNCLEAR


class Accuracies:
    """All classifiers of a measurement, and what they say."""

    def __init__(self, rows: Sequence[Accuracy]):
        self._found = {key_of(row): row.accuracy for row in rows}

    def of(self, size: int, condition: Condition, kind: str, point: tuple[int, int]) -> list[float]:
        """Accuracies by seed; what draws nothing is the same for every `kind` and (t, K)."""
        where = (kind, *point) if condition in ("drawn", "both") else (None, None, None)
        return [
            accuracy for (of, _, name, *rest), accuracy in sorted(self._found.items(), key=lambda item: item[0][:2])
            if of == size and name == condition and tuple(rest) == where
        ]  # fmt: skip

    def difference(
        self, size: int, conditions: tuple[Condition, Condition], kind: str, point: tuple[int, int]
    ) -> SeedMean:
        """The first condition's accuracy less the second's, seed by seed: both had the same labelled images."""
        first, second = (self.of(size, condition, kind, point) for condition in conditions)
        return estimate([a - b for a, b in zip(first, second, strict=True)])

    def row(self, size: int, kind: str, point: tuple[int, int]) -> dict[str, Any]:
        """Row of one size at one (t, K), as plain JSON values."""
        means = {name: asdict(estimate(self.of(size, name, kind, point))) for name in LETTERS}
        differences = {}
        for first, second in COMPARED:
            found = self.difference(size, (first, second), kind, point)
            differences[f"{first} - {second}"] = {**asdict(found), "verdict": verdict(found)}
        return {"num_labelled": size, "start_timestep": point[0], "num_per_image": point[1], "accuracy": means,
                "difference": differences}  # fmt: skip
