"""What a run is told of others of its config."""

import json

import pytest

from fastddpm.config import load_config
from fastddpm.training.records import RECORDS, record_in_words
from tests.generated_tables import PROJECT


def words(name, **settings):
    return record_in_words(load_config(name, {key.replace("__", "."): value for key, value in settings.items()}))


def test_numbers_are_those_of_the_records():
    results = PROJECT / "benchmarks" / "results"
    rows = json.loads((results / "2026-11-25-time-to-quality.json").read_text())["rows"]
    of_digits = {row["images seen"]: row["FID"] for row in rows if row["recipe"].startswith(("quickstart", "mnist"))}
    for name in ("quickstart", "mnist-paper"):
        scores, _, place = RECORDS[name]
        assert place == "2026-11-25-time-to-quality"
        assert scores == {count: f"{of_digits[count]:.0f}" for count in scores}
    scores, _, place = RECORDS["recommended-32"]
    table = (results / f"{place}.md").read_text()
    ours = [line.split("|") for line in table.splitlines() if line.startswith("| **recommended-32**")]
    found = sorted((int(cells[3].replace(",", "")), float(cells[6])) for cells in ours)
    assert found == [(90_000, 11.4), (90_000, 12.3)]
    assert scores == {90_000: "11.4 and 12.3"}


def test_the_longest_measured_run_that_was_not_longer_is_told_with_what_it_was_measured_on():
    assert words("quickstart") == (
        "quickstart was measured after 173,440 images: FID 64 (other real digits 33.5) on 6,000 MNIST digits, by 128 "
        "features of a classifier; yours may be easier or harder (benchmarks/results/2026-11-25-time-to-quality.md)"
    )
    assert "after 90,000 images: FID 11.4 and 12.3" in words("recommended-32", data__source="mine", output_dir="x")
    assert "after 70,400 images: FID 123" in words("quickstart", train__num_images_seen=100_000, seed=3)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("recommended-64", {}),
        ("recommended-32", {"data__image_size": 48}),
        ("recommended-32", {"model__block_out_channels": [32, 64]}),
        ("quickstart", {"train__learning_rate": 1e-3}),
        ("quickstart", {"train__num_images_seen": 50_000}),
        ("quickstart", {"data__augment": {"turn": 10}}),
    ],
)
def test_of_what_was_not_measured_nothing_is_said(name, settings):
    assert words(name, **settings) is None
