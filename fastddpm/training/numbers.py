"""The yield of a run in three numbers with a sentence each: how good, whether copied, how long."""

from typing import Any, NamedTuple

from fastddpm.measures.nearest import QUANTILE
from fastddpm.report.charts import Rows
from fastddpm.training.class_share import NEIGHBOURS
from fastddpm.training.length import in_minutes
from fastddpm.training.metrics import training_time
from fastddpm.training.near_copies import in_words
from fastddpm.training.run import Run


class Number(NamedTuple):
    """One of them."""

    value: str
    title: str
    sentence: str


def numbers_of(run: Run, rows: Rows) -> list[Number]:
    """Take them from the rows of metrics.jsonl, as far as these go."""
    newest = {key: value for row in rows for key, value in row.items() if value is not None}
    compared = [row for row in rows if "nearest_verdict" in row]
    copies = _copies(compared[-1], len(run.splits.train)) if compared and run.config.watch.nearest else None
    return [number for number in (_quality(newest), copies, _time(run, rows)) if number is not None]


def _quality(newest: dict[str, Any]) -> Number | None:
    """The best that is known without a long wait."""
    if "class_share" in newest:
        one = "the class that was asked for" if newest["class_is_asked_for"] else "one class"
        return Number(
            f"{newest['class_share']:.0%}", "of the samples look like their class",
            f"Of {newest['class_num_samples']} samples: their {NEIGHBOURS} nearest of {newest['class_num_compared']:,} "
            f"training images are all of {one}. So it is for {newest['class_share_of_reals']:.0%} of "
            f"{newest['class_num_reals']} real images.",
        )  # fmt: skip
    if "kid_interval" in newest:
        low, high = newest["kid_interval"]
        return Number(
            f"{newest['kid']:.4f}", "KID", "How far the samples are from real images, in features of "
            f"{newest['kid_features']}: 0 is no distance, and it lies between {low:.4f} and {high:.4f} (95 %)"
            f"{': with so few images it cannot be told from 0' if low <= 0 <= high else ''}.",
        )  # fmt: skip
    if "held_out_loss" in newest:
        return Number(
            f"{newest['held_out_loss']:.4f}", "loss on held-out images",
            "The mean square error of the network's prediction on images that it never saw; on as many training images "
            f"it is {newest['train_set_loss']:.4f}. If that one gets much lower, the run learns its images by heart.",
        )  # fmt: skip
    if "train_set_loss" in newest:
        return Number(
            f"{newest['train_set_loss']:.4f}", "loss on training images",
            "The mean square error of the network's prediction. No images are held out (data.num_held_out), so it "
            "cannot be told whether the run learns its images by heart.",
        )  # fmt: skip
    return None


def _copies(row: dict[str, Any], num_images: int) -> Number:
    if row["nearest_verdict"] == "cannot tell":
        return Number("no verdict", "on copies of training images", in_words(row, num_images))
    samples, usual = row["nearest_num_samples"], row.get("nearest_median_distance_of_reals")
    apart = "" if usual is None else (
        f" The samples are {row['nearest_median_distance']:.0f} grey levels of 255 away from the training image "
        f"nearest to them, real images {usual:.0f} (medians)."
    )  # fmt: skip
    return Number(
        f"{row['nearest_num_close']} of {samples}", "samples are close to a training image",
        f"Of as many real images it would be {samples * QUANTILE:.0f}.{apart}",
    )  # fmt: skip


def _time(run: Run, rows: Rows) -> Number | None:
    seconds, seen = training_time(rows)
    if not seconds:
        return None
    times = seen / len(run.splits.train)
    return Number(
        in_minutes(seconds), "of training",
        f"{seen:,} images at {seen / seconds:,.0f} a second: each of the {len(run.splits.train):,} training images was "
        f"seen {times:,.{int(times < 10)}f} times.",
    )  # fmt: skip


def in_a_line(numbers: list[Number]) -> str:
    """All of them, for the console."""
    ordered = [*numbers[-1:], *numbers[:-1]]  # time first
    return "learnt: " + "; ".join(f"{number.value} {number.title}" for number in ordered)
