"""Sides take turns, ratios are paired, records say what they were made with; the scripts run at tiny size."""

import json
import subprocess
import sys

import pytest

from benchmarks.harness import ROOT, Bar, Runs, Side, as_markdown, interleave, paired, points, row, write_record
from benchmarks.peers import lucidrains

SLEEPER = "tests.benchmarks.sides:sleeper"


@pytest.mark.slow
def test_sides_take_turns_in_an_order_that_turns(tmp_path):
    log = tmp_path / "log"
    pauses = {"a": 0.02, "b": 0.08}
    sides = {n: Side(SLEEPER, {"name": n, "seconds": s, "log": str(log)}) for n, s in pauses.items()}
    runs = interleave(sides, rounds=3, warm_up=1)
    assert log.read_text().split("\n")[:8] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert sorted(log.read_text().split("\n")[8:10]) == ["a left", "b left"], "each side cleans up"
    assert [len(found.rates) for found in runs.values()] == [3, 3], "the warm-up does not count"
    assert runs["a"].facts == {"name": "a"}
    assert 2 / 0.08 * 0.5 < points(runs["b"].rates)[1] <= 2 / 0.08
    assert 1.5 < paired(runs, "a", "b")["p50"] < 8
    assert runs["a"].peak_gib > 0


def test_a_side_that_fails_is_named_with_its_error():
    with pytest.raises(RuntimeError, match="(?s)broken ended with 1:.*ValueError: no such thing"):
        interleave({"broken": Side("tests.benchmarks.sides:failing")}, rounds=1)


def test_a_ratio_is_the_median_within_rounds():
    ours, other = ([10.0, 2.0, 30.0], [5.0, 1.0, 10.0])  # the machine was slow in the second round
    runs = {"ours": Runs(ours, 0, 0, {}), "other": Runs(other, 0, 0, {})}
    assert paired(runs, "ours", "other")["p50"] == 2.0


@pytest.mark.parametrize(("got", "at_most", "reached"), [(2.2, False, True), (2.19, False, False), (2.3, True, False)])
def test_bars_say_whether_they_are_reached(got, at_most, reached):
    bar = Bar("speed", got, 2.2, at_most)
    assert bar.is_reached == reached
    assert str(bar).startswith("pass" if reached else "FAIL")


def test_records_say_what_they_were_made_with(tmp_path, capsys):
    rows = [
        row("ours", Runs([1.0, 2.0, 3.0], 0.5, 0.25, {"parameters": 7}), "images/s"),
        {"side": "other", "more": "x"},
    ]
    write_record(tmp_path / "record", "A test", rows, [Bar("speed", 2.0, 1.0)], note="tiny")
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["rows"][0]["p50"] == 2.0
    assert record["bars"][0]["is_reached"] is True
    assert record["versions"]["torch"] != "n/a"
    assert record["commit"] != "n/a"
    assert "pass  speed" in capsys.readouterr().out
    text = (tmp_path / "record.md").read_text()
    assert text == as_markdown(record)
    assert "| ours | images/s |" in text
    assert (tmp_path / "record.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options", "sides"),
    [
        ("training_speed", ["--batch_size", "4", "--steps", "1", "--no_processes", "--no_compile"], 9),
        ("sampling_speed", ["--num_images", "2", "--num_steps", "2"], 6),
        ("kernel_speed", ["--cases", "add_noise, given", "denoise_step, keyed", "denoising_mse", "--no_compile"], 7),
    ],
)
def test_scripts_run_at_tiny_size(tmp_path, script, options, sides):
    """Whether they work, never how fast they are."""
    subprocess.run(
        [sys.executable, "-m", f"benchmarks.{script}", "--tiny", "--rounds", "1", *options, "--out", tmp_path / "out"],
        cwd=ROOT, check=True, timeout=560,
    )  # fmt: skip
    record = json.loads((tmp_path / "out.json").read_text())
    assert len(record["rows"]) == sides + (lucidrains.is_installed() and script != "kernel_speed")
    assert all(line["p50"] > 0 for line in record["rows"])
    assert bool(record["bars"]) == (script != "kernel_speed"), "it has nothing that must be reached"
