"""`fastddpm evaluate`, from files to a record."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, cli
from fastddpm.measures.features import load_judge
from fastddpm.verbs.evaluate import feature_space
from tests.conftest import class_folders, tiny_unet
from tests.measures.test_classifier import bars
from tests.measures.test_unlabelled_judge import corners, noisy
from tests.training.runs import free_port, train_here


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def labelled(tmp_path):
    return class_folders(tmp_path / "labelled", *bars(320))


@pytest.fixture
def classifier(labelled, tmp_path):
    path = tmp_path / "c.safetensors"
    words = ["--num_tested", "64", "--epochs", "4", "--num_threads", "1"]
    cli.main(["judge", str(labelled), "--out", str(path), *words])
    return path


def npz(path, images):
    pixels = np.moveaxis(np.asarray(images), 1, -1)  # (N, H, W, C)
    np.savez(path, images=pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return path


@pytest.fixture
def evaluate(classifier, tmp_path):
    def run(samples, reals, *words, out="out"):
        given = ["--features", classifier, "--resamples", 20, "--num_threads", 1, "--out", tmp_path / out]
        cli.main(list(map(str, ["evaluate", samples, reals, *given, *words])))
        return json.loads((tmp_path / out / "evaluation.json").read_text())

    return run


@pytest.fixture
def reals(tmp_path):
    return npz(tmp_path / "reals.npz", bars(300, seed=5)[0])


def test_good_samples_score_better_than_bad_ones(evaluate, reals, tmp_path, capsys):
    good = evaluate(npz(tmp_path / "good.npz", bars(200, seed=6)[0]), reals)
    printed = capsys.readouterr().out
    noise = np.random.default_rng(0).integers(0, 256, (200, 1, 16, 16), dtype=np.uint8)
    bad = evaluate(npz(tmp_path / "bad.npz", noise), reals, out="bad")
    half = evaluate(npz(tmp_path / "half.npz", bars(400, seed=7)[0][::2]), reals, out="half")
    for name, sign in (("fid", 1), ("kid", 1), ("precision", -1)):
        assert sign * good["scores"][name] < sign * bad["scores"][name], name
    assert half["scores"]["recall"] < good["scores"]["recall"], "upright bars alone"
    assert half["scores"]["precision"] > 0.5
    assert good["floor"]["fid"] < bad["scores"]["fid"] / 10
    low, high = good["scores"]["intervals"]["fid"]
    assert low < good["scores"]["fid"] < high
    assert good["samples"]["num_images"] == 200
    assert good["reals"] == {"source": str(reals), "split": "all", "num_images": 300, "of": 300, "seed": None}
    assert good["features"]["name"] == "c.safetensors"
    assert good["features"]["description"] == "128 features of a classifier of 2 classes trained on 256 images"
    assert good["features"]["count"] == 128
    assert len(good["features"]["sha256"]) == 64
    assert "memorization" not in good
    assert good["scores"]["doubt"] == "kid cannot be told from 0 with so few images"
    assert bad["scores"]["doubt"] is None
    for word in (
        "200 samples",
        "300 reals",
        "in 128 features of a classifier of 2 classes trained on 256 images (c.safetensors)",
        "fid",
        "recall",
    ):
        assert word in printed


def test_copies_are_found_and_shown(evaluate, reals, tmp_path, capsys):
    training = npz(tmp_path / "training.npz", bars(120, seed=8)[0])
    capsys.readouterr()
    copies = evaluate(npz(tmp_path / "copies.npz", bars(120, seed=8)[0][:100]), reals, "--training", training)
    fresh = evaluate(npz(tmp_path / "fresh.npz", bars(100, seed=9)[0]), reals, "--training", training, out="fresh")
    assert "100 samples and 300 reals are too few for 128 features" in capsys.readouterr().out
    assert copies["memorization"]["verdict"] == "copies"
    assert copies["memorization"]["feature_distance"] == [0.0, 0.0, 0.0]
    assert fresh["memorization"]["verdict"] == "no copies"
    seen = fresh["memorization"]
    assert 0.5 < seen["feature_distance"][1] / seen["feature_distance_of_reals"][1] < 2
    assert (tmp_path / "out" / "nearest.png").stat().st_size > 500


def test_equal_samples_count_each_time(evaluate, reals, tmp_path):
    """A generator that draws the same few images again and again."""
    few = bars(8, seed=6)[0]
    once, often = npz(tmp_path / "once.npz", few), npz(tmp_path / "often.npz", few.repeat(25, 1, 1, 1))
    assert evaluate(once, reals)["samples"]["num_images"] == 8
    collapsed = evaluate(often, reals, out="often")
    assert collapsed["samples"] == {"source": str(often), "split": "all", "num_images": 200, "of": 200, "seed": None}
    assert collapsed["scores"]["recall"] < 0.2


def test_a_runs_samples_and_splits(evaluate, labelled, tmp_path, capsys):
    run = train_here(tmp_path / "run", labelled, **{"data.num_held_out": 100})
    found = evaluate(run, f"{run}:held_out", "--num_images", 40, "--num_inference_steps", 2, "--micro_batch_size", 20)
    assert found["samples"]["num_images"] == 40
    assert found["samples"]["source"] == str(run)
    assert found["reals"]["split"] == "held_out"
    assert found["reals"]["num_images"] == 100
    assert found["memorization"]["training"]["split"] == "train", "a run knows what it was trained on"
    assert found["memorization"]["training"]["num_images"] == 220


def test_a_judge_of_other_images_is_refused_before_any_is_drawn(evaluate, reals, tmp_path, capsys):
    FastDDPMPipeline(tiny_unet(), FusedDDPMScheduler(num_train_timesteps=20, beta_end=0.5)).save_pretrained(
        tmp_path / "run"
    )
    with pytest.raises(SystemExit):
        evaluate(tmp_path / "run", reals, "--num_images", 40, "--num_inference_steps", 2)
    said = capsys.readouterr()
    assert "got (1, 8, 8) images of torch.uint8; the judge takes (1, 16, 16), uint8: make one of " in said.err
    assert " by ddpm" not in said.out
    assert not (tmp_path / "out" / "samples.npz").exists()


def test_features_of_reals_are_kept(evaluate, reals, tmp_path, monkeypatch):
    samples = npz(tmp_path / "good.npz", bars(200, seed=6)[0])
    first = evaluate(samples, reals)
    titles, original = [], feature_space.FeatureSpace.of

    def of(self, images, title):
        titles.append(title)
        return original(self, images, title)

    monkeypatch.setattr(feature_space.FeatureSpace, "of", of)
    assert evaluate(samples, reals, out="again")["scores"] == first["scores"]
    assert titles == ["samples"]
    evaluate(samples, npz(tmp_path / "others.npz", bars(300, seed=15)[0]), out="others")
    assert titles == ["samples", "samples", "reals"]


def test_torchscript_features(evaluate, reals, tmp_path):
    """As Inception files are: three channels in, (B, D) out."""

    class Means(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)

    torch.jit.script(Means()).save(str(tmp_path / "means.pt"))
    samples = npz(tmp_path / "good.npz", bars(200, seed=6)[0])
    found = evaluate(samples, reals, "--features", tmp_path / "means.pt")
    assert found["features"]["count"] == 12
    assert found["features"]["name"] == "means.pt"
    assert found["features"]["description"] == "12 features of a TorchScript network"


def test_features_that_need_no_labels(evaluate, tmp_path):
    """All of it without a label: the judge, reals and samples in colour."""
    reals = npz(tmp_path / "reals.npz", corners(300, seed=1))
    judge = tmp_path / "u.safetensors"
    words = ["--num_steps", "20", "--num_images", "100", "--num_threads", "1"]
    cli.main(["judge", str(reals), "--out", str(judge), *words])
    good = npz(tmp_path / "good.npz", corners(200, seed=2))
    bad = npz(tmp_path / "bad.npz", noisy(corners(200, seed=2), 60))
    found = [evaluate(samples, reals, "--features", judge, out=samples.stem) for samples in (good, bad)]
    assert found[0]["scores"]["fid"] < found[1]["scores"]["fid"]
    description = "64 features of a small network trained without labels on 100 images"
    assert found[0]["features"] == {
        "name": "u.safetensors", "description": description, "sha256": load_judge(judge).sha256(), "count": 64,
    }  # fmt: skip


def test_a_seed_chooses_among_many(evaluate, reals, tmp_path):
    samples = npz(tmp_path / "good.npz", bars(200, seed=6)[0])
    some = [
        evaluate(samples, reals, "--num_reals", 150, "--seed", seed, out=f"{i}") for i, seed in enumerate((0, 0, 1))
    ]
    assert some[0]["reals"]["num_images"] == 150
    assert some[0]["reals"]["seed"] == 0
    assert some[0]["scores"] == some[1]["scores"]
    assert some[0]["scores"]["fid"] != some[2]["scores"]["fid"]


@pytest.mark.parametrize(
    ("samples", "words", "message"),
    [
        ("reals.npz", ["--features", "nowhere.pt"], "--features nowhere.pt is no file"),
        ("reals.npz", ["--features", "nowhere.safetensors"], "nowhere.safetensors is no file"),
        ("nowhere.npz", [], "nowhere.npz"),
        ("small.npz", [], "got (1, 8, 8) images"),
        ("three.npz", [], "got 3 samples and 300 reals; give at least 4 of each"),
        ("reals.npz", ["--num_reals", 0], "num_reals is 0"),
        ("reals.npz", ["--resamples", -1], "resamples is -1"),
    ],
)
def test_what_does_not_fit_is_refused(evaluate, reals, tmp_path, capsys, samples, words, message):
    npz(
        tmp_path / "small.npz",
        np.zeros((5, 1, 8, 8), dtype=np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None, None],
    )
    npz(tmp_path / "three.npz", bars(3)[0])
    with pytest.raises(SystemExit):
        evaluate(tmp_path / samples, reals, *words)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_find_what_one_does(evaluate, classifier, reals, scheduler, tmp_path):
    model = tmp_path / "model"
    FastDDPMPipeline(tiny_unet(sample_size=16), scheduler).save_pretrained(model)
    words = ["--num_images", 40, "--num_inference_steps", 2, "--micro_batch_size", 8]
    one = evaluate(model, reals, *words)
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_port", free_port(), "-m", "fastddpm"]
    given = ["--features", classifier, "--resamples", 20, "--num_threads", 1, "--out", tmp_path / "two"]
    subprocess.run(
        [sys.executable, *map(str, [*launcher, "evaluate", model, reals, *given, *words, "--num_processes", 2])],
        env={**os.environ, "ACCELERATE_USE_CPU": "true"}, check=True, timeout=240,
    )  # fmt: skip
    assert json.loads((tmp_path / "two" / "evaluation.json").read_text()) == one


def test_a_run_draws_in_the_mix_of_the_reals_and_both_are_told(evaluate, tmp_path, capsys):
    images, labels = bars(320)
    rare = np.flatnonzero(labels.numpy() == 1)[20:]
    kept = np.setdiff1d(np.arange(320), rare)
    source = class_folders(tmp_path / "unequal", images[kept], labels[kept])
    run = train_here(tmp_path / "run", source, **{"data.num_held_out": 60, "model.class_conditional": True})
    words = ["--num_images", 40, "--num_inference_steps", 2]
    found = evaluate(run, f"{run}:held_out", *words)
    shares = [
        np.array([found[of]["classes"].get(name, 0) for name in "01"]) / found[of]["num_images"]
        for of in ("samples", "reals")
    ]
    assert abs(shares[0] - shares[1]).max() <= 1 / 40
    assert shares[1][0] > 0.7
    said = capsys.readouterr().out
    assert f"classes: samples {shares[0][0]:.0%} 0, " in said
    assert "differ" not in said
    assert "the last two columns: 30 samples, and as many reals, against 30 other reals" in said
    equal = class_folders(tmp_path / "equal", images[:80], labels[:80])
    evaluate(equal, source, out="files")
    assert "the mixes of classes differ by 3" in capsys.readouterr().out


def test_features_that_are_not_finite_are_refused_by_name(evaluate, reals, tmp_path, capsys):
    class Logs(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.float().mean(dim=(2, 3)).log()

    torch.jit.script(Logs()).save(str(tmp_path / "logs.pt"))
    images = bars(200, seed=6)[0].clone()
    images[:3] = 0
    with pytest.raises(SystemExit):
        evaluate(npz(tmp_path / "black.npz", images), reals, "--features", tmp_path / "logs.pt")
    assert "--features logs.pt makes no finite numbers of 3 of 200 samples; use another" in capsys.readouterr().err


def test_the_split_that_was_taken_is_named(evaluate, tmp_path, capsys):
    for split, seed in (("train", 1), ("test", 2)):
        class_folders(tmp_path / "both" / split, *bars(60, seed=seed))
    samples = npz(tmp_path / "good.npz", bars(60, seed=6)[0])
    assert evaluate(samples, tmp_path / "both")["reals"]["split"] == "train"
    assert f"({tmp_path / 'both'}, train)" in capsys.readouterr().out
    assert evaluate(samples, f"{tmp_path / 'both'}:test", out="test")["reals"]["split"] == "test"
