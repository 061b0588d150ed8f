"""The benchmarks of quality go from digits to a record at tiny size; what their numbers are is not asked here."""

import json
import subprocess
import sys

import pytest

from benchmarks.harness import ROOT
from benchmarks.peers import lucidrains
from fastddpm.config import DataConfig
from fastddpm.data import ingest
from tests.data.sources.test_arrays import write_idx


def run(script, *options):
    words = [sys.executable, "-m", f"benchmarks.{script}", "--tiny", *map(str, options)]
    subprocess.run(words, cwd=ROOT, check=True, timeout=560)


@pytest.mark.slow
def test_time_to_quality_and_what_bfloat16_does_to_it(tmp_path):
    digits = ingest(DataConfig(source="digits"))
    mnist = write_idx(tmp_path, digits.images[::4, 0], digits.labels[::4].astype("uint8"))
    work, out = tmp_path / "work", tmp_path / "record"
    common = ["--mnist", mnist, "--work", work, "--num_samples", "32", "--out", out]
    run("time_to_quality", *common, "--minutes", "0.03", "--marks", "2", "--lengths", "0.05")
    record = json.loads(out.with_suffix(".json").read_text())
    recipes = ("UNet2DModel", "mnist-paper", "plain loop", "quickstart, 0.05 minutes")
    assert [row["recipe"] for row in record["rows"]] == [name for name in recipes for _ in range(2)]
    for first, second in zip(record["rows"][::2], record["rows"][1::2], strict=True):
        assert 0 < first["minutes"] < second["minutes"]
        assert 0 < first["images seen"] < second["images seen"]
        assert first["FID"] != second["FID"], "each mark is drawn from weights of its own"
    assert all(row["FID"] > record["floor"] for row in record["rows"]), "nothing is learned in seconds"
    assert (tmp_path / "record-curves.png").stat().st_size > 1000

    kept = {path: path.stat().st_mtime_ns for path in work.glob("*/mark-*/quality-32.json")}
    run("time_to_quality", *common, "--only", "judge")
    assert len(kept) == 8
    assert kept == {path: path.stat().st_mtime_ns for path in kept}, "what was judged is kept"

    low = tmp_path / "precision"
    run(
        "precision_quality", work / "mnist-paper" / "mark-2", "--mnist", mnist, "--num_samples", 32, "--resamples", 8,
        "--out", low,
    )  # fmt: skip
    record = json.loads(low.with_suffix(".json").read_text())
    full, bf16 = record["rows"]
    assert full["bootstrap 2.5 %"] < full["FID"] < full["97.5 %"]
    assert bf16["FID"] != full["FID"]
    assert 0 < record["mean difference in grey levels"] < 30
    assert len(record["bars"]) == 2


@pytest.mark.slow
@pytest.mark.skipif(not lucidrains.is_installed(), reason="denoising-diffusion-pytorch is not installed")
@pytest.mark.parametrize("side", ["training", "sampling"])
def test_lucidrains_package_runs_as_a_side(side):
    """In a process of its own: it may put a stand-in for torchvision there."""
    size = {"num_images": 2, "num_steps": 3} if side == "sampling" else {"batch_size": 4, "steps": 2}
    code = (
        f"from benchmarks.peers.lucidrains import TINY_SIZE, {side}\n"
        f"with {side}(**{size}, **TINY_SIZE) as measured: print(measured.run(), measured.facts['parameters'])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    count, parameters = map(int, found.stdout.split())
    assert count == (2 if side == "sampling" else 8)
    assert parameters > 10_000
