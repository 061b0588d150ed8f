"""`benchmarks.few_images` on a tiny measurement."""

import json
import sys

import numpy as np
import pytest

from benchmarks import few_images
from fastddpm.studies.augmentation.gain import evaluate_augmentation
from tests.studies.augmentation.conftest import stripes, tiny


@pytest.mark.slow
def test_each_model_has_a_row_and_each_start_a_share(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))
    images, labels = stripes(100)
    np.savez(tmp_path / "stripes.npz", images=images, labels=labels)
    config = tiny(tmp_path / "gain", tmp_path / "stripes.npz", num_held_out=40)
    evaluate_augmentation(config)
    words = [str(tmp_path / "gain"), "--out", tmp_path / "few", "--num_samples", 12, "--num_reals", 16, "--seeds", 0, 1]
    monkeypatch.setattr(sys, "argv", ["few_images", *map(str, words)])
    few_images.main()
    record = json.loads((tmp_path / "few.json").read_text())
    assert [(row["images"], row["seed"]) for row in record["rows"]] == [
        ("6", 0), ("6", 1), ("9", 0), ("9", 1), ("40", 0),
    ]  # fmt: skip
    for row in record["rows"]:
        assert row["FID"] > 0
        assert 0 <= row["close"] <= 1
    shares = {(row["images"], row["model"], row["t"]) for row in record["variations"]}
    assert shares == {(size, model, t) for size in (6, 9) for model in ("own", "all") for t in (8, 3)}
    assert record["floor"]["FID"] > 0
