"""The comparison of detectors: what is planted, what the baselines do, and every stage from digits to a record."""

import json
import subprocess
import sys
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from benchmarks.anomalies import baselines, defects, measure, methods, promise, rare, runs, tables
from benchmarks.anomalies.__main__ import main, record
from benchmarks.anomalies.methods import DECIDING
from benchmarks.anomalies.sets import NUM_DIGITS, TINY, Parts, Sizes, rare_set, together
from benchmarks.anomalies.sets import digits as parts_of
from benchmarks.harness import ROOT
from fastddpm import AnomalyPipeline, FusedDDPMScheduler
from fastddpm.config import DataConfig
from fastddpm.data import ingest
from tests.conftest import tiny_unet
from tests.data.sources.test_arrays import write_idx


@pytest.fixture(scope="module")
def digits():
    return np.asarray(ingest(DataConfig(source="digits")).images[::100])


@pytest.fixture(scope="module")
def colours():
    rng = np.random.default_rng(0)
    return np.stack([np.kron(rng.integers(0, 256, (3, 4, 4)), np.ones((1, 8, 8))).astype(np.uint8) for _ in range(8)])


@pytest.mark.parametrize("kind", defects.KINDS)
def test_a_defect_is_where_its_mask_says_and_nowhere_else(kind, digits, colours):
    images = digits if kind in defects.ON_DIGITS else colours
    before = images.copy()
    planted = defects.plant(kind, images, seed=0)
    assert (images == before).all()
    assert planted.images.dtype == np.uint8
    assert planted.images.shape == images.shape
    change = np.abs(planted.images.astype(int) - images).max(axis=1)
    assert (planted.masks == (change >= defects.MIN_CHANGE)).all()
    shares = planted.masks.mean(axis=(1, 2))
    assert shares.min() >= defects.MIN_SHARE
    assert shares.max() < 0.35, "most of the image stays as it was"
    again = defects.plant(kind, images, seed=0)
    assert (again.images == planted.images).all()
    assert (defects.plant(kind, images, seed=1).images != planted.images).any()


def test_strokes_and_blots_brighten_and_erasures_darken(digits):
    for kind in ("stroke", "blot"):
        assert (defects.plant(kind, digits, seed=0).images >= digits).all()
    erased = defects.plant("erasure", digits, seed=0)
    assert (erased.images <= digits).all()
    assert all(ndimage.label(mask, np.ones((3, 3)))[1] <= 3 for mask in erased.masks), "one disc, few pieces of stroke"


def test_a_defect_does_not_depend_on_the_other_images(digits):
    alone = defects.plant("stroke", digits[:3], seed=4)
    assert (alone.images == defects.plant("stroke", digits, seed=4).images[:3]).all()


def test_a_hard_part_is_a_rectangle_of_the_next_picture(colours):
    planted = defects.plant("hard part", colours, seed=0)
    other = np.roll(colours, -1, axis=0)
    for image, mask, source in zip(planted.images, planted.masks, other, strict=True):
        values = {tuple(pixel) for pixel in image[:, mask].T}
        assert values <= {tuple(pixel) for pixel in source.reshape(3, -1).T}
    soft = defects.plant("soft part", colours, seed=0)
    steps = [np.abs(np.diff(made.images.astype(int), axis=3)).max() for made in (planted, soft)]
    assert steps[0] > 0
    assert (soft.images != planted.images).any()


def test_what_cannot_be_planted_is_refused(digits):
    with pytest.raises(ValueError, match="kind is 'dent'; wanted one of stroke, erasure, blot"):
        defects.plant("dent", digits, seed=0)
    with pytest.raises(ValueError, match="no erasure changes 1% of an image in 200 draws; is it empty"):
        defects.plant("erasure", np.zeros((1, 1, 28, 28), dtype=np.uint8), seed=0)


def test_distance_is_that_of_a_point_and_of_a_line():
    image = np.zeros((1, 5, 9))
    point = defects.distance(image, np.array([2.0, 4]), np.array([2.0, 4]))
    assert point[2, 4] == 0
    assert point[0, 4] == 2
    line = defects.distance(image, np.array([2.0, 2]), np.array([2.0, 6]))
    assert (line[2, 2:7] == 0).all()
    assert (line[0, 2:7] == 2).all()
    assert line[2, 8] == 2, "beyond its end"


# --------------------------------------------------------------------------------------------- baselines


def test_nearest_neighbour_knows_a_copy(digits):
    train, others = torch.from_numpy(digits[:30]), torch.from_numpy(digits[30:35])
    found = baselines.nearest_in_pixels(torch.cat([train[4:6], others]), train)
    assert found.scores[:2].tolist() == pytest.approx([0, 0], abs=0.02)  # cdist's rounding, in 28 x 28 dimensions
    assert (found.scores[2:] > 1).all()
    assert found.maps.shape == (7, 28, 28)
    slow = min(float((others[0].double() - x.double()).div(127.5).square().sum().sqrt()) for x in train)
    assert float(found.scores[2]) == pytest.approx(slow, rel=1e-4)


def test_pca_takes_the_fewest_components_that_explain_normal_images():
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(3, 64))
    flat = 128 + rng.normal(size=(300, 3)) @ axes * [[8]] + rng.normal(size=(300, 64)) * 0.5
    images = torch.from_numpy(flat.reshape(-1, 1, 8, 8).clip(0, 255).astype(np.uint8))
    rebuild, count = baselines.pca(images[:200], images[200:])
    assert 2 <= count <= 3
    x = images[:4].float() / 127.5 - 1
    assert torch.allclose(rebuild(rebuild(x)), rebuild(x), atol=1e-4), "a projection"
    odd = images[:20].clone()
    odd[:, :, 2:4, 2:4] = 255
    plain, standardised = baselines.by_rebuilding(rebuild, torch.cat([images[200:220], odd]), images[200:])
    for found in (plain, standardised):
        assert found.scores.shape == (40,)
        assert found.maps.shape == (40, 8, 8)
        assert found.scores[20:].min() > found.scores[:20].max()


@pytest.mark.parametrize(("shape", "wanted"), [((1, 28, 28), 183_332), ((3, 64, 64), 700_000)])
def test_the_autoencoder_has_about_as_many_parameters(shape, wanted, digits):
    images = torch.from_numpy(digits[:8]) if shape[0] == 1 else torch.zeros(8, *shape, dtype=torch.uint8)
    made = baselines.autoencoder(images, num_parameters=wanted, images_seen=64, seed=0)
    assert baselines.count_of(made) == pytest.approx(wanted, rel=0.4)
    with torch.no_grad():
        assert made(torch.zeros(2, *shape)).shape == (2, *shape)


def test_the_autoencoder_learns_and_is_the_same_on_every_call(digits):
    images = torch.from_numpy(digits)
    errors = [
        (baselines.by_rebuilding(net, images, images)[0].scores).mean()
        for net in (
            baselines.autoencoder(images, num_parameters=20_000, images_seen=seen, seed=0) for seen in (64, 3200)
        )
    ]
    assert errors[1] < 0.5 * errors[0]
    first, second = (
        baselines.autoencoder(images, num_parameters=20_000, images_seen=96, seed=1).state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


# --------------------------------------------------------------------------------------------- sets and runs


def counted(label, count):
    """Images that say which they are: (N, 1, 2, 2)."""
    made = np.full((count, 1, 2, 2), label, dtype=np.uint8)
    made[:, 0, 0, 0] = np.arange(count)
    return made


def test_a_rare_set_grows_and_leaves_the_rare_digit_out_of_the_normals():
    parts = [Parts(counted(digit, 40), counted(digit, 5), counted(digit, 5)) for digit in range(NUM_DIGITS)]
    normals, five = rare_set(parts, 8, 5, TINY)
    _, twenty = rare_set(parts, 8, 20, TINY)
    assert len(normals) == TINY.rare_normals
    assert 8 not in normals[:, 0, 1, 1]
    assert set(np.unique(normals[:, 0, 1, 1])) == set(range(10)) - {8}
    assert (five[:, 0, 1, 1] == 8).all()
    assert (twenty[:5] == five).all()
    assert len({int(x) for x in twenty[:, 0, 0, 0]}) == 20
    mixed = together(parts)
    assert len(mixed.train) == 400
    assert len(mixed.test) == 50


def test_what_the_first_seed_needs_is_trained_first():
    names = [task.name for task in runs.tasks([0, 1, 2], Sizes(), has_colour=True)]
    assert len(names) == len(set(names)) == 1 + 10 + 1 + 20 + 2 + 15
    assert names[:2] == ["digits-seed0", "digit0-seed0"]
    assert names[11] == "colour-seed0"
    assert names.index("digit9-seed2") < names.index("digits-seed1") < names.index("rare8-5")
    assert "colour-seed0" not in [task.name for task in runs.tasks([0], Sizes(), has_colour=False)]


# --------------------------------------------------------------------------------------------- tests and records


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    digits = ingest(DataConfig(source="digits"))
    return write_idx(tmp_path_factory.mktemp("mnist"), digits.images[::5, 0], digits.labels[::5].astype("uint8"))


@pytest.fixture(scope="module")
def work(mnist, tmp_path_factory):
    """One finished run of each kind, of the digits."""
    work = tmp_path_factory.mktemp("work")
    parts = parts_of(mnist, TINY)
    planned = [runs.everything(0, TINY), runs.one_class(3, 0, TINY), runs.with_rare(8, 5, TINY)]
    runs.train_all(planned, parts, work, TINY)
    return work


@pytest.mark.slow
def test_finished_runs_are_measured_once_and_stand_in_records(mnist, work, tmp_path):
    parts = parts_of(mnist, TINY)
    stamps = {path: path.stat().st_mtime_ns for path in work.glob("runs/*/about.json")}
    assert len(stamps) == 3
    runs.train_all([runs.one_class(3, 0, TINY)], parts, work, TINY)
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}, "a finished run is not trained again"

    for _ in range(2):
        measure.one_class(parts, work, [0, 1], TINY)
        measure.planted(parts, None, work, [0], TINY)
        rare.rare(parts, work, TINY)
        found = {path: path.stat().st_mtime_ns for path in work.glob("measured/*/*.json")}
        assert len(found) == 3
        stamps = stamps if len(stamps) > 3 else {**stamps, **found}
    assert all(stamps[path] == stamp for path, stamp in found.items()), "what was measured is kept"

    record(work, tmp_path / "record", tmp_path / "images")
    one = json.loads((tmp_path / "record-one-class.json").read_text())
    assert {row["method"] for row in one["rows"]} >= {DECIDING, "PCA", "autoencoder", "nearest neighbour, features"}
    assert all(0 <= row["AUROC"] == row["3"] <= 1 for row in one["rows"])
    assert one["facts"][0]["facts"]["forward passes"] == 2
    planted = json.loads((tmp_path / "record-planted.json").read_text())
    assert {row["defect"] for row in planted["rows"]} == {*defects.ON_DIGITS, "mean"}
    by_features = [row for row in planted["rows"] if row["method"] == "nearest neighbour, features"]
    assert by_features
    assert all("PRO" not in row for row in by_features), "it has no map"
    few = json.loads((tmp_path / "record-rare.json").read_text())
    assert [row["detector"] for row in few["rows"]] == list(rare.ARMS)
    assert few["rows"][0]["gain"] == 0
    for name in ("digits", "planted-digits"):
        assert (tmp_path / "images" / f"anomalies-{name}.png").stat().st_size > 1000


@pytest.mark.slow
def test_thresholds_keep_their_promise_over_splits(mnist, work):
    run = runs.folder_of(runs.everything(0, TINY), work)
    rows = promise.promise(run, together(parts_of(mnist, TINY)), "stroke", replace(TINY, known=40), splits=200)
    low, high = rows["10%"]["binomial band"]
    assert low <= rows["10%"]["false alarms"] <= high


def test_a_test_holds_other_images_than_training_and_every_other_digit(mnist):
    parts = parts_of(mnist, TINY)
    images, truth = measure.against_the_rest(parts, 3, 0, TINY)
    assert (int((~truth).sum()), int(truth.sum())) == (TINY.test_normals, (NUM_DIGITS - 1) * TINY.test_others)
    seen = {image.tobytes() for part in parts for image in (*part.train, *part.calibration)}
    assert not seen & {image.numpy().tobytes() for image in images}
    again, _ = measure.against_the_rest(parts, 3, 1, TINY)
    assert not torch.equal(images, again), "a seed draws its own"
    planted, masks = measure.with_defects(together(parts), defects.ON_DIGITS, 0, TINY)
    assert len(planted) == len(masks) == TINY.test_normals * 4
    assert masks.any(dim=(1, 2)).tolist() == [False] * TINY.test_normals + [True] * TINY.test_normals * 3


def test_a_detector_learns_from_balanced_batches_what_is_rare(digits):
    normals, rare_ones = torch.from_numpy(digits[:40]), 255 - torch.from_numpy(digits[40:45])
    sizes = Sizes(rare_detector_steps=40, rare_batch=16)
    images, truth = torch.cat([normals[:5], rare_ones]), torch.arange(10) >= 5
    for moves in (False, True):
        network = rare.train_detector(normals, rare_ones, [], moves, 0, sizes)
        assert rare.auroc(network, images, truth) == 1
    blend = rare.Positives(rare_ones.float() / 127.5 - 1, torch.full((5,), 0.5))
    assert rare.train_detector(normals, rare_ones, [blend], False, 0, sizes)(normals.float()).shape == (40, 1)


def test_patches_of_pixels_find_what_is_where_it_never_was(digits):
    images = torch.from_numpy(digits)
    spoilt = images[40:].clone()
    spoilt[:, :, :6, :6] = 255
    found = baselines.nearest_patches(torch.cat([images[40:], spoilt]), images[:10], images[10:40])
    normal, odd = found.maps.chunk(2)
    assert found.maps.shape == (2 * len(spoilt), 28, 28)
    assert bool((odd[:, :6, :6].mean((1, 2)) > 2 * normal[:, :6, :6].mean((1, 2))).all())
    assert bool((odd.flatten(1).argmax(1) // 28 < 8).all())
    scores = found.scores.chunk(2)
    assert bool((scores[1] > scores[0]).all())


def test_the_untrained_network_is_another_one_of_the_same_build():
    trained = AnomalyPipeline(tiny_unet(), FusedDDPMScheduler())
    with torch.no_grad():
        for parameter in trained.unet.parameters():
            parameter.add_(1)
    one, two = (methods.untrained(trained) for _ in range(2))
    assert one.unet.config == trained.unet.config
    pairs = zip(one.unet.parameters(), trained.unet.parameters(), two.unet.parameters(), strict=True)
    same, again = zip(*((torch.equal(a, b), torch.equal(a, c)) for a, b, c in pairs), strict=True)
    assert not any(same)
    assert all(again)
    assert not one.unet.training


def test_shifts_and_turns_keep_what_is_in_the_middle(digits):
    images = torch.from_numpy(digits).float() / 127.5 - 1
    torch.manual_seed(0)
    moved = rare.moved(images)
    assert moved.shape == images.shape
    assert moved.min() >= -1
    assert moved.max() <= 1
    assert (moved.mean(dim=(1, 2, 3)) - images.mean(dim=(1, 2, 3))).abs().max() < 0.1
    assert (moved != images).any()


def test_intervals_are_student_s_and_unknown_of_one_value():
    values = [0.8, 0.9, 0.85]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert tables.half_width(values) == pytest.approx((high - low) / 2)
    assert tables.half_width([0.5]) is None


def of_method(auroc):
    return {"image_auroc": auroc, "image_ap": auroc}


def test_only_seeds_with_every_digit_count():
    kept = [
        {"digit": digit, "seed": seed, "methods": {DECIDING: of_method(0.9), "PCA": of_method(0.8 + digit / 100)}}
        for seed, digit in ((0, 1), (0, 8), (1, 1), (1, 8), (2, 1))
    ]
    assert tables.whole_seeds(kept) == [0, 1]
    ours, pca = tables.one_class_rows(kept)
    assert ours["ours less it"] == 0
    assert pca["AUROC"] == pytest.approx(fmean([0.81, 0.88]))
    assert pca["AUROC, digits not looked at"] == pytest.approx(0.81)
    assert pca["ours less it"] == pytest.approx(0.9 - 0.845)


@pytest.mark.slow
def test_every_stage_from_the_command_line(mnist, tmp_path):
    rng = np.random.default_rng(0)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in range(90):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(pictures / f"{name}.png")
    common = ["--mnist", mnist, "--colour", pictures, "--work", tmp_path / "work", "--tiny", "--seeds", "0"]
    for stage in ("train", "judges", "one-class", "planted", "rare"):
        command(stage, *common)
    command("record", "--work", tmp_path / "work", "--out", tmp_path / "record", "--images", tmp_path / "images")
    rows = json.loads((tmp_path / "record-planted.json").read_text())["rows"]
    assert {row["set"] for row in rows} == {"digits", "colour"}
    assert (tmp_path / "images" / "anomalies-planted-colour.png").exists()


def command(stage, *options):
    words = [sys.executable, "-m", "benchmarks.anomalies", stage, *map(str, options)]
    subprocess.run(words, cwd=ROOT, check=True, timeout=1200)


def test_a_stage_says_what_it_needs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["anomalies", "train", "--work", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert "the stage train needs --mnist; only record does without" in capsys.readouterr().err
