"""From what was measured to the rows of the records."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from benchmarks.anomalies.methods import DECIDING
from benchmarks.anomalies.rare import ALONE

Row = dict[str, Any]
LOOKED_AT = (2, 5, 8)
"""the digits on which the detector was chosen, by images that no test draws"""


def half_width(values: Sequence[float]) -> float | None:
    """Of the 95 % interval of their mean, by Student's t; None: of one value."""
    if len(values) < 2:
        return None
    return float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


def one_class_rows(kept: Sequence[Row]) -> list[Row]:
    """A row a method: AUROC and average precision, means over digits and seeds, and AUROC by digit.

    Only seeds of which every digit was measured count; without one, the digits that the first seed has.
    """
    seeds = whole_seeds(kept)
    used = [row for row in kept if row["seed"] in seeds]
    digits = sorted({row["digit"] for row in used})
    rows = []
    for method in used[0]["methods"]:
        of_digit = {digit: by_seed(used, digit, method, "image_auroc") for digit in digits}
        seed_means = [fmean(column) for column in zip(*of_digit.values(), strict=True)]
        others = [fmean(of_digit[digit]) for digit in digits if digit not in LOOKED_AT]
        ours = [fmean(by_seed(used, digit, DECIDING, "image_auroc")) for digit in digits]
        apart = [a - fmean(of_digit[digit]) for a, digit in zip(ours, digits, strict=True)]
        rows.append({
            "method": method, "AUROC": fmean(seed_means), "± over seeds": half_width(seed_means),
            "of each seed": [round(mean, 4) for mean in seed_means],
            "AP": fmean(fmean(by_seed(used, digit, method, "image_ap")) for digit in digits),
            "AUROC, digits not looked at": fmean(others) if others else None,
            "ours less it": fmean(apart), "± over digits": half_width(apart),
        } | {str(digit): fmean(values) for digit, values in of_digit.items()})  # fmt: skip
    return rows


def whole_seeds(kept: Sequence[Row]) -> list[int]:
    """Those that have as many digits as any."""
    counts: dict[int, int] = {}
    for row in kept:
        counts[row["seed"]] = counts.get(row["seed"], 0) + 1
    return sorted(seed for seed, count in counts.items() if count == max(counts.values()))


def by_seed(kept: Sequence[Row], digit: int, method: str, name: str) -> list[float]:
    """A number of a method for a digit, a seed each."""
    rows = sorted((row for row in kept if row["digit"] == digit), key=lambda row: row["seed"])
    return [row["methods"][method][name] for row in rows]


NUMBERS = {"image_auroc": "AUROC", "image_ap": "AP", "pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP", "pro": "PRO"}


def planted_rows(kept: Sequence[Row]) -> list[Row]:
    """A row a set, kind of defect and method: means over seeds, and the first seed's intervals over images."""
    rows = []
    for name in dict.fromkeys(row["set"] for row in kept):
        of_set = [row for row in kept if row["set"] == name]
        for kind in of_set[0]["kinds"]:
            for method in of_set[0]["kinds"][kind]:
                found = [row["kinds"][kind][method] for row in of_set]
                rows.append({"set": name, "defect": kind, "method": method, "seeds": len(found), **_means(found)})
        for method in of_set[0]["kinds"][kind]:
            over = [_mean_of_kinds(row["kinds"], method) for row in of_set]
            rows.append({"set": name, "defect": "mean", "method": method, "seeds": len(over), **_means(over)})
    return rows


def _mean_of_kinds(kinds: Mapping[str, Row], method: str) -> Row:
    numbers: Row = {"intervals": {}}
    for key in NUMBERS:
        values = [found[method][key] for found in kinds.values()]
        numbers[key] = None if None in values else fmean(values)
    return numbers


def _means(found: Sequence[Row]) -> Row:
    row: Row = {}
    for key, title in NUMBERS.items():
        values = [each[key] for each in found]
        if None in values:
            continue
        row[title] = fmean(values)
        if len(values) > 1:
            row[f"± {title}"] = half_width(values)
        elif key in found[0]["intervals"]:
            row[f"{title}, 95 % over images"] = [round(x, 3) for x in found[0]["intervals"][key]]
    return row


def rare_rows(kept: Sequence[Row]) -> list[Row]:
    """A row a number of known examples and way to train: AUROC, and its gain over the rare ones alone, over digits."""
    rows = []
    for count in sorted({row["count"] for row in kept}):
        of_count = [row for row in kept if row["count"] == count]
        for arm in of_count[0]["arms"]:
            values = [fmean(row["arms"][arm]) for row in of_count]
            gains = [value - fmean(row["arms"][ALONE]) for value, row in zip(values, of_count, strict=True)]
            rows.append({
                "known": count, "detector": arm, "digits": [row["digit"] for row in of_count], "AUROC": fmean(values),
                "± over digits": half_width(values), "gain": fmean(gains), "± of the gain": half_width(gains),
                "of each digit": [round(value, 4) for value in values],
            })  # fmt: skip
    return rows


def without_none(rows: Sequence[Row]) -> Iterator[Row]:
    """A table shows an empty cell for what is not known."""
    for row in rows:
        yield {name: value for name, value in row.items() if value is not None}
