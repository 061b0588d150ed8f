"""`fastddpm detect` from end to end: what is written, what is the same again, what is refused."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from fastddpm import AnomalyPipeline, FusedDDPMScheduler, cli
from fastddpm.data.named_pictures import Fitting, named_images, read_inputs
from fastddpm.measures.calibration import Calibration
from fastddpm.verbs.detect.truth import read_truth
from fastddpm.verbs.sample.renoised import file_names
from tests.conftest import tiny_unet
from tests.training.runs import free_port


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path):
    AnomalyPipeline(tiny_unet(), FusedDDPMScheduler()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def normal(tmp_path):
    """Dim, grainy squares."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 60, (30, 8, 8), dtype=np.uint8)
    images[:, 2:6, 2:6] += 100
    np.savez(tmp_path / "normal.npz", images=images)
    return tmp_path / "normal.npz"


@pytest.fixture
def others(tmp_path):
    """Five files like the normal ones; in the first two a corner is white, and their masks say so."""
    draw = np.random.default_rng(1)
    (tmp_path / "others").mkdir()
    (tmp_path / "masks").mkdir()
    for i in range(5):
        image, mask = draw.integers(0, 60, (8, 8), dtype=np.uint8), np.zeros((8, 8), dtype=np.uint8)
        image[2:6, 2:6] += 100
        if i < 2:
            image[5:, 5:], mask[5:, 5:] = 255, 255
            Image.fromarray(mask).save(tmp_path / "masks" / f"image-{i}_mask.png")
        Image.fromarray(image).save(tmp_path / "others" / f"image-{i}.png")
    return tmp_path / "others"


def detect(model, images, out, *more):
    words = ["detect", model, images, "--out", out, "--micro_batch_size", 2, "--num_threads", 1, *more]
    cli.main(list(map(str, words)))
    return json.loads((out / "detection.json").read_text())


@pytest.fixture
def refused(capsys):
    def run(*words) -> str:
        with pytest.raises(SystemExit) as stop:
            detect(*words)
        assert stop.value.code == 2
        return capsys.readouterr().err.split("fastddpm: error: ", 1)[1].strip()

    return run


def test_defects_are_above_the_threshold_and_everything_is_written(model, normal, others, tmp_path, capsys):
    out = tmp_path / "out"
    masks = tmp_path / "masks"
    record = detect(model, others, out, "--normal", normal, "--masks", masks, "--resamples", 20)
    rows = record["images"]
    assert [row["image"].rsplit("/", 1)[-1] for row in rows] == [f"image-{i}.png" for i in range(5)]
    assert min(row["score"] for row in rows[:2]) > max(row["score"] for row in rows[2:])
    assert [row["is_anomaly"] for row in rows[:2]] == [True, True]
    assert record["measured"]["image_auroc"] == 1.0
    assert record["measured"]["pixel_auroc"] > 0.9
    assert 0 < record["measured"]["pro"] <= 1
    top, left, height, width = rows[0]["box"]
    assert top <= 5 <= 7 == top + height - 1
    assert left <= 5 <= 7 == left + width - 1
    highest = np.unravel_index(np.load(out / rows[0]["map"]).argmax(), (8, 8))
    assert min(highest) >= 4, "the corner that is white"
    said = capsys.readouterr().out
    assert "of 5 images are above the threshold, which at most 5 % of normal ones pass" in said
    assert "image AUROC 1.000" in said
    for row in rows:
        assert Image.open(out / row["picture"]).size[0] > 4 * 8
        map_ = np.load(out / row["map"])
        assert (map_.shape, map_.dtype) == ((8, 8), np.float32)
        assert int((map_ > record["thresholds"]["pixel"]).sum()) == row["num_pixels"]
    page = (out / "report.html").read_text()
    assert page.count("<img ") == 5
    assert "Against the masks" in page
    assert "image-0.png" in page
    assert "http://" not in page
    assert "https://" not in page


def test_boxes_and_maps_are_told_in_the_pictures_own_pixels(tmp_path):
    """Pictures of 96x60 to a network of 8x10: a defect of 12x12 at (40, 30) is found there."""
    AnomalyPipeline(tiny_unet(sample_size=(8, 10)), FusedDDPMScheduler()).save_pretrained(tmp_path / "model")
    draw = np.random.default_rng(0)
    for name, count in (("normal", 24), ("others", 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            image = draw.integers(90, 110, (96, 60), dtype=np.uint8)
            image[40:52, 30:42] = 255 if (name, i) == ("others", 0) else 100
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    words = [tmp_path / "model", tmp_path / "others", tmp_path / "out", "--normal", tmp_path / "normal"]
    first, second = detect(*words, "--map_size", "picture")["images"]
    own = first["in_picture"]
    assert (own["size"], own["cut"], own["scale"]) == ([96, 60], [24.0, 0.0, 48.0, 60.0], [6.0, 6.0])
    top, left, height, width = own["box"]
    assert top <= 40 < 52 <= top + height
    assert left <= 30 < 42 <= left + width
    assert own["box"] == [24 + 6 * first["box"][0], *(6 * side for side in first["box"][1:])]
    map_ = np.load(tmp_path / "out" / "picture_maps" / "0.npy")
    assert (map_.shape, map_.dtype) == ((96, 60), np.float32)
    row, column = np.unravel_index(np.nanargmax(map_), map_.shape)
    assert 34 <= row < 58
    assert 24 <= column < 48
    assert np.isnan(map_[:24]).all()
    assert np.isnan(map_[72:]).all()
    assert not np.isnan(map_[24:72]).any()
    assert np.load(tmp_path / "out" / first["map"]).shape == (8, 10)
    assert second["in_picture"]["size"] == [96, 60]


def test_names_of_pictures_and_models_are_text(model, normal, others, tmp_path):
    others.rename(tmp_path / "<b>others")
    model.rename(tmp_path / "<b>model")
    (tmp_path / "<b>others" / "image-0.png").rename(tmp_path / "<b>others" / "<b>first.png")
    detect(tmp_path / "<b>model", tmp_path / "<b>others", tmp_path / "out", "--normal", normal)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>" not in page
    assert all(f"&lt;b&gt;{name}" in page for name in ("model", "first.png"))


def test_the_numbers_are_those_of_the_pipeline(model, normal, others, tmp_path):
    record = detect(model, others, tmp_path / "out", "--normal", normal)
    calibration = Calibration.load(tmp_path / "out" / "calibration.safetensors")
    asked = AnomalyPipeline.from_pretrained(model)
    asked.set_progress_bar_config(disable=True)
    asked.unet.to(memory_format=torch.channels_last)
    images = [Image.open(others / f"image-{i}.png") for i in range(5)]
    found = asked(images, calibration, micro_batch_size=2)
    assert [row["score"] for row in record["images"]] == [round(score, 4) for score in found.scores.tolist()]
    assert record["thresholds"]["image"] == calibration.image_threshold


def test_a_calibration_is_used_again(model, normal, others, tmp_path, refused):
    first = detect(model, others, tmp_path / "first", "--normal", normal)
    kept = tmp_path / "first" / "calibration.safetensors"
    again = detect(model, others, tmp_path / "again", "--calibration", kept)
    assert again["images"] == first["images"]
    assert not (tmp_path / "again" / "calibration.safetensors").exists()
    said = refused(model, others, tmp_path / "third", "--calibration", kept, "--false_alarms", 0.1)
    assert said.startswith("got --calibration and --false_alarms, which a calibration has settled")
    AnomalyPipeline(tiny_unet(), DDIMScheduler()).save_pretrained(tmp_path / "other")
    said = refused(tmp_path / "other", others, tmp_path / "third", "--calibration", kept)
    assert "the calibration is of another model, other weights or another solver" in said


def test_known_images_are_compared_with_too(model, normal, others, tmp_path):
    np.savez(tmp_path / "known.npz", images=np.random.default_rng(2).integers(0, 99, (12, 8, 8), dtype=np.uint8))
    record = detect(
        model, others, tmp_path / "out", "--normal", normal, "--known", tmp_path / "known.npz", "--num_known", 10
    )
    facts = record["calibration"]
    assert facts["num_known"] == 10
    assert facts["made_from"]["known"]["of"] == 12
    none = detect(model, others, tmp_path / "none", "--normal", normal)["calibration"]
    assert none["num_known"] == 0, "other normal images than a run's own bring none of the run's"


def test_a_run_brings_its_own_normal_images(normal, others, tmp_path, refused):
    empty = tmp_path / "empty.yaml"
    empty.write_text("{}\n")
    words = [
        "train", "--config", empty, "--out", tmp_path / "run", "--data.source", normal, "--data.num_held_out",
        20, "--model.block_out_channels", "[8, 16]", "--train.num_images_seen", 8, "--train.batch_size", 4,
        "--train.num_threads", 1, "--sample.num_images", 1, "--sample.num_inference_steps", 2,
    ]  # fmt: skip
    cli.main(list(map(str, words)))
    record = detect(tmp_path / "run", others, tmp_path / "out")
    assert record["calibration"]["made_from"]["normal"]["split"] == "held_out"
    assert record["calibration"]["made_from"]["known"]["split"] == "train"
    assert record["calibration"]["num_images"] == 20
    assert record["calibration"]["num_known"] == 10
    record = detect(tmp_path / "run", others, tmp_path / "alone", "--num_known", 0)
    assert record["calibration"]["num_known"] == 0
    said = refused(tmp_path / "run", f"{tmp_path}/run:held_out", tmp_path / "more", "--map_size", "picture")
    assert said.startswith("--map_size is picture, and a run's store keeps no sizes of its pictures; name the files")


def test_suspects_among_the_run_s_own_images_come_first(tmp_path, refused, capsys):
    """Four images of fifty are of another kind; the run was trained on most of these."""
    images = np.random.default_rng(0).integers(0, 60, (50, 8, 8), dtype=np.uint8)
    images[:, 2:6, 2:6] += 100
    for place, at in enumerate((3, 17, 29, 41)):
        images[at, :4, 2 * place : 2 * place + 2] = 255
    np.savez(tmp_path / "normal.npz", images=images)
    (tmp_path / "empty.yaml").write_text("{}\n")
    words = [
        "train", "--config", tmp_path / "empty.yaml", "--out", tmp_path / "run", "--data.source",
        tmp_path / "normal.npz", "--data.num_held_out", 24, "--model.block_out_channels", "[8, 16]",
        "--train.num_images_seen", 8, "--train.batch_size", 4, "--train.num_threads", 1, "--sample.num_images", 1,
        "--sample.num_inference_steps", 2,
    ]  # fmt: skip
    cli.main(list(map(str, words)))
    capsys.readouterr()
    words = ["detect", tmp_path / "run", "--suspects", "--out", tmp_path / "out", "--num_threads", 1]
    cli.main(list(map(str, words)))
    rows = json.loads((tmp_path / "out" / "detection.json").read_text())["images"]
    assert len(rows) == 50
    assert all(row["is_calibrated_on"] for row in rows)
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    found = [named_images(row["image"]).images[0] for row in rows]
    assert [(image[0, :4] == 255).any() for image in found] == [True] * 4 + [False] * 46
    assert "oddest first:\n  " in capsys.readouterr().out
    said = refused(tmp_path / "run", "x.png", tmp_path / "out", "--suspects")
    assert said == "wanted either images to judge or --suspects, which judges the run's own"


@pytest.mark.slow
def test_two_processes_find_the_same(model, normal, others, tmp_path):
    words = ["detect", model, others, "--normal", normal, "--micro_batch_size", 1, "--num_threads", 1]
    for name, launcher in (
        ("one", []),
        ("two", ["torch.distributed.run", "--nproc_per_node", 2, "--master_port", free_port(), "-m"]),
    ):
        command = [sys.executable, "-m", *launcher, "fastddpm", *words, "--out", tmp_path / name]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, timeout=200,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    one, two = tmp_path / "one", tmp_path / "two"
    assert (one / "detection.json").read_bytes() == (two / "detection.json").read_bytes()
    for i in range(5):
        assert (one / "maps" / f"image-{i}.npy").read_bytes() == (two / "maps" / f"image-{i}.npy").read_bytes()
        assert (one / "pictures" / f"image-{i}.png").read_bytes() == (two / "pictures" / f"image-{i}.png").read_bytes()


def test_without_normal_images_it_is_said_what_to_give(model, others, tmp_path, refused):
    assert "has no held-out images; say which images are normal" in refused(model, others, tmp_path / "out")
    np.savez(tmp_path / "few.npz", images=np.zeros((3, 8, 8), np.uint8) + np.arange(3, dtype=np.uint8)[:, None, None])
    said = refused(model, others, tmp_path / "out", "--normal", tmp_path / "few.npz")
    assert "has 3 images; calibration takes at least 20 normal ones" in said
    assert not (tmp_path / "out").exists()


def test_an_earlier_detection_is_replaced_and_a_stopped_one_gone_on_with(model, normal, others, tmp_path):
    out = tmp_path / "out"
    detect(model, others, out, "--normal", normal)
    (out / "detection.json").unlink()  # as where it was killed
    (out / ".detection.json.tmp").write_text("{")
    (others / "image-0.png").unlink()
    kept = detect(model, others, out, "--calibration", out / "calibration.safetensors")
    assert len(kept["images"]) == 4
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [f"image-{i}.png" for i in range(1, 5)]
    assert sorted(path.name for path in (out / "maps").iterdir()) == [f"image-{i}.npy" for i in range(1, 5)]


def test_other_things_are_not_written_over(model, normal, others, tmp_path, refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("dear")
    assert "holds other things than a detection" in refused(model, others, tmp_path / "out", "--normal", normal)
    assert (tmp_path / "out" / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_normal", 5], "num_normal is 5; it must be at least 20"),
        (["--false_alarms", 1], "false_alarms is 1; it must be below 1"),
        (["--num_known", -1], "num_known is -1; it must be at least 0"),
        (
            ["--false_alarms", 0.01],
            "30 normal images that are no near-copies promise 0.032 at least; it takes 99: give",
        ),
        (["--masks", "nowhere"], "--masks is nowhere, which is no folder"),
        (["--start_timesteps", 2000], "start_timesteps is 2000"),
    ],
)
def test_what_cannot_be_asked_is_refused(model, normal, others, tmp_path, refused, words, message):
    assert message in refused(model, others, tmp_path / "out", "--normal", normal, *words)


def test_masks_belong_to_images(model, normal, others, tmp_path, refused):
    masks = tmp_path / "masks"
    (masks / "image-1.png").write_bytes((masks / "image-1_mask.png").read_bytes())
    assert "are both masks of image-1" in refused(model, others, tmp_path / "o", "--normal", normal, "--masks", masks)
    (masks / "image-1.png").rename(masks / "image-9.png")
    assert "image-9.png is the mask of no image here" in refused(
        model, others, tmp_path / "o", "--normal", normal, "--masks", masks
    )
    (masks / "image-9.png").unlink()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(masks / "image-0_mask.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(masks / "image-1_mask.png")
    assert "marks something in 0 of 5 images" in refused(
        model, others, tmp_path / "o", "--normal", normal, "--masks", masks
    )
    (masks / "image-0_mask.png").write_text("no picture")
    assert "image-0_mask.png is no image" in refused(
        model, others, tmp_path / "o", "--normal", normal, "--masks", masks
    )


def test_masks_are_found_by_folder_where_names_repeat(model, normal, others, tmp_path, refused):
    """As in sets of industrial parts: test/crack/000.png and ground_truth/crack/000_mask.png."""
    test, truth = tmp_path / "test", tmp_path / "ground_truth"
    draw = np.random.default_rng(3)
    for kind, corner in (("crack", 0), ("scratch", 5), ("good", None)):
        (test / kind).mkdir(parents=True)
        for i in range(2):
            image, mask = draw.integers(0, 60, (8, 8), dtype=np.uint8), np.zeros((8, 8), np.uint8)
            if corner is not None:
                image[corner:, corner:][:3, :3] = mask[corner:, corner:][:3, :3] = 255
                (truth / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(truth / kind / f"00{i}_mask.png")
            Image.fromarray(image).save(test / kind / f"00{i}.png")
    fitting = Fitting.of(None, (1, 8, 8))
    found = read_inputs([str(test)], fitting)
    masks = read_truth(truth, found, file_names(found.names), fitting).marked
    assert [name.split("/")[0] for name in found.names] == ["crack"] * 2 + ["good"] * 2 + ["scratch"] * 2
    assert masks.any((1, 2)).tolist() == [True, True, False, False, True, True]
    assert masks[0, 0, 0]
    assert masks[4, 5, 5]
    alone = read_inputs([str(test / kind / "000.png") for kind in ("crack", "good")], fitting)
    (truth / "scratch").rename(tmp_path / "aside")
    (truth / "crack" / "001_mask.png").unlink()
    assert read_truth(truth, alone, file_names(alone.names), fitting).is_anomalous.tolist() == [True, False]
    record = detect(model, test, tmp_path / "out", "--normal", normal, "--masks", truth, "--resamples", 2)
    assert record["measured"]["image_auroc"] > 0
    (truth / "crack" / "000_mask.png").rename(truth / "000_mask.png")
    said = refused(model, test, tmp_path / "out", "--normal", normal, "--masks", truth)
    assert "000_mask.png is the mask of 2 images, among them crack/000.png, that are named so" in said


@pytest.fixture
def screws(tmp_path):
    """A set of the MVTec kind; cracks are in one corner, cuts in another."""
    draw = np.random.default_rng(5)
    for place, count, corner in (
        ("train/good", 4, None),
        ("test/crack", 3, 0),
        ("test/cut", 2, 5),
        ("test/good", 4, None),
    ):
        split, kind = place.split("/")
        for i in range(count):
            image, mask = draw.integers(0, 60, (8, 8), dtype=np.uint8), np.zeros((8, 8), np.uint8)
            image[2:6, 2:6] += 100
            if corner is not None:
                image[corner:, corner:][:3, :3] = mask[corner:, corner:][:3, :3] = 255
                (tmp_path / "screw" / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(tmp_path / "screw" / "ground_truth" / kind / f"00{i}_mask.png")
            (tmp_path / "screw" / split / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / "screw" / split / kind / f"00{i}.png")
    return tmp_path / "screw"


def test_a_set_in_folders_and_the_same_pictures_flat_give_equal_numbers(model, normal, screws, tmp_path, capsys):
    few = ["--normal", normal, "--resamples", 20]
    found = detect(model, screws, tmp_path / "out", *few)
    said = capsys.readouterr().out
    assert "screw: MVTec layout: 4 good to train on; 2 kinds of defects and their masks left for detect" in said
    assert [row["kind"] for row in found["images"]] == ["crack"] * 3 + ["cut"] * 2 + ["good"] * 4
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat-masks").mkdir()
    for path in sorted((screws / "test").rglob("*.png")):
        shutil.copy(path, tmp_path / "flat" / f"{path.parent.name}-{path.name}")
    for path in sorted((screws / "ground_truth").rglob("*.png")):
        shutil.copy(path, tmp_path / "flat-masks" / f"{path.parent.name}-{path.name}")
    flat = detect(model, tmp_path / "flat", tmp_path / "flat-out", *few, "--masks", tmp_path / "flat-masks")
    assert flat["measured"] == found["measured"]
    assert found["measured"]["num_anomalous"] == 5
    assert [row["score"] for row in flat["images"]] == [row["score"] for row in found["images"]]
    assert (flat["measured_by_kind"], {row["kind"] for row in flat["images"]}) == ({}, {None})
    for given in (screws / "test", f"{screws}:test"):
        assert (
            detect(model, given, tmp_path / "part", *few, "--masks", screws / "ground_truth")["measured"]
            == flat["measured"]
        )
    by_kind = found["measured_by_kind"]
    assert {kind: (of["num_normal"], of["num_anomalous"]) for kind, of in by_kind.items()} == {
        "crack": (4, 3),
        "cut": (4, 2),
    }
    alone = [*sorted((screws / "test" / "cut").glob("*")), *sorted((screws / "test" / "good").glob("*"))]
    shutil.rmtree(screws / "ground_truth" / "crack")
    words = ["detect", model, *alone, "--out", tmp_path / "cut", "--micro_batch_size", 2, "--num_threads", 1]
    cli.main(list(map(str, [*words, "--normal", normal, "--resamples", 0, "--masks", screws / "ground_truth"])))
    measured = json.loads((tmp_path / "cut" / "detection.json").read_text())["measured"]
    assert measured == by_kind["cut"]
    line = next(line for line in said.splitlines() if line.startswith("  cut (2): "))
    assert line.startswith(
        f"  cut (2): image AUROC {measured['image_auroc']:.3f}, image AP {measured['image_ap']:.3f}, "
    )
    assert "<td>cut (2)</td>" in (tmp_path / "out" / "report.html").read_text()


def test_kinds_alone_are_measured_by_image(model, normal, screws, tmp_path):
    with_masks = detect(model, screws, tmp_path / "with", "--normal", normal, "--resamples", 0)["measured"]
    shutil.rmtree(screws / "ground_truth")
    found = detect(model, screws, tmp_path / "out", "--normal", normal, "--resamples", 0)["measured"]
    assert found == {**with_masks, "pixel_auroc": None, "pixel_ap": None, "pro": None, "num_regions": None}


def test_images_of_the_calibration_are_not_measured_and_told(model, normal, others, tmp_path, capsys):
    """Normal images, which are judged by themselves otherwise, among those to be judged."""
    images = np.load(normal)["images"]
    for i in range(6):
        Image.fromarray(images[i]).save(others / f"normal-{i}.png")
    np.savez(tmp_path / "twice.npz", images=np.concatenate([images, images[:3]]))
    masks = ["--masks", tmp_path / "masks", "--resamples", 2]
    fresh = detect(model, others, tmp_path / "out", "--normal", tmp_path / "twice.npz", *masks)
    said = "6 of 11 images are among the normal or known ones of the calibration: each is scored without itself"
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "out" / "report.html").read_text()
    rows = fresh["images"]
    assert fresh["num_calibrated_on"] == 6
    assert [row["is_calibrated_on"] for row in rows] == [False] * 5 + [True] * 6
    assert min(row["score"] for row in rows) > -6, "not compared with themselves, nor with a copy"
    for path in others.glob("normal-*.png"):
        path.unlink()
    alone = detect(model, others, tmp_path / "alone", "--normal", tmp_path / "twice.npz", *masks)
    assert alone["measured"] == fresh["measured"]
    kept = ["--calibration", tmp_path / "alone" / "calibration.safetensors"]
    own = detect(model, normal, tmp_path / "own", *kept)
    assert (own["num_calibrated_on"], own["measured"]) == (30, None)
    assert "0 of 0 images are above the threshold" in capsys.readouterr().out


def test_a_calibration_of_an_older_version_is_refused(model, normal, others, tmp_path, refused):
    detect(model, others, tmp_path / "out", "--normal", normal)
    kept = tmp_path / "out" / "calibration.safetensors"
    kept.write_bytes(kept.read_bytes().replace(b'\\"version\\": 2', b'\\"version\\": 1'))
    said = refused(model, others, tmp_path / "again", "--calibration", kept)
    assert said == f"{kept} holds no calibration of ours (it is of another version of fastddpm); make one anew"


def test_the_promise_is_told_before_anything_is_judged(model, normal, others, tmp_path, capsys):
    detect(model, others, tmp_path / "out", "--normal", normal, "--false_alarms", 0.1)
    said = capsys.readouterr().out
    assert said.startswith(
        "calibrating on 30 normal images: at most 10 % false alarms, 2.1 to 22 % by these ones (95 %); so many can "
        "promise 3.2 % at least\n"
    )


def test_numbers_stand_in_a_table_too(model, normal, others, tmp_path):
    out = tmp_path / "out"
    record = detect(model, others, out, "--normal", normal)
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [row["image"] for row in record["images"]]
    for row, wanted in zip(rows, record["images"], strict=True):
        assert all(float(row[name]) == wanted[name] for name in ("score", "p_value", "q_value"))
        assert row["is_anomaly"] == str(wanted["is_anomaly"]) == str(wanted["p_value"] <= 0.05)
    assert [row["p_value"] for row in record["images"][:2]] == [1 / 31] * 2
    assert [row["q_value"] for row in record["images"][:2]] == pytest.approx([5 / 31 / 2] * 2)


def test_masks_are_written_in_folders_as_the_pictures_are(model, normal, tmp_path):
    """Those of a first detection are read as the masks of a second one."""
    draw = np.random.default_rng(1)
    for folder in ("test/crack", "test/scratch", "test/good"):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(2):
            image = draw.integers(0, 60, (16, 24), dtype=np.uint8)
            image[4:12, 6:18] += 100
            if "good" not in folder:
                image[10:, 16:] = 255
            Image.fromarray(image).save(tmp_path / folder / f"00{i}.png")
    first = detect(model, tmp_path / "test", tmp_path / "first", "--normal", normal)
    masks = tmp_path / "first" / "masks"
    names = ["crack/000_mask.png", "crack/001_mask.png", "scratch/000_mask.png", "scratch/001_mask.png"]
    assert sorted(str(path.relative_to(masks)) for path in masks.rglob("*.png")) == names
    for row in first["images"]:
        if row["mask"] is not None:
            mask = np.asarray(Image.open(tmp_path / "first" / row["mask"]))
            assert (mask.shape, set(np.unique(mask))) == ((16, 24), {0, 255})
            assert not mask[:, :4].any(), "the network does not see it"
    second = detect(model, tmp_path / "test", tmp_path / "second", "--normal", normal, "--masks", masks)
    assert second["measured"]["num_anomalous"] == 4
    assert second["measured"]["pixel_auroc"] > 0.9


def test_the_page_begins_with_what_the_threshold_gets_wrong(model, normal, others, tmp_path):
    """Masks that mark one picture that is normal, and leave out one that is not."""
    masks, out = tmp_path / "masks", tmp_path / "out"
    (masks / "image-1_mask.png").rename(masks / "image-4_mask.png")
    detect(model, others, out, "--normal", normal, "--masks", masks, "--resamples", 0)
    page = (out / "report.html").read_text()
    titles = ["Missed (1)", "False alarms (1)", "Above the threshold (1)", "Below it (2)"]
    places = [page.index(f"<h2>{title}</h2>") for title in titles]
    assert places == sorted(places)
    assert "image-4.png" in page[places[0] : places[1]]
    assert "image-1.png" in page[places[1] : places[2]]
    assert 'id="threshold"' in page


def test_a_row_of_pictures_that_changes_is_told(model, normal, tmp_path, capsys):
    draw = np.random.default_rng(5)
    images = draw.integers(0, 60, (90, 8, 8), dtype=np.uint8)
    images[:, 2:6, 2:6] += 100
    images[60:, 3:5, :] //= 2
    np.savez(tmp_path / "row.npz", images=images)
    record = detect(model, tmp_path / "row.npz", tmp_path / "out", "--normal", normal)
    names = [row["image"] for row in record["images"]]
    assert record["change"]["evidence"] > 100
    assert 55 <= names.index(record["change"]["changed_from"]) <= 65
    assert 60 <= names.index(record["change"]["changed_by"]) < 80
    assert "normal has changed: from about" in capsys.readouterr().out
    np.savez(tmp_path / "row.npz", images=images[:60])
    assert detect(model, tmp_path / "row.npz", tmp_path / "out", "--normal", normal)["change"]["changed_by"] is None


def test_detect_and_evaluate_take_a_recommended_run_on_50_pictures_without_more_words(tmp_path):
    """Only the training is shortened, and the network made narrow."""
    rng = np.random.default_rng(0)
    for name, count in (("normal", 50), ("others", 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            pixels = rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    short = [
        "--train.num_images_seen", 8, "--train.batch_size", 4, "--model.block_out_channels", "[8, 16]",
        "--model.attention_head_dim", 8, "--sample.num_images", 2, "--sample.num_inference_steps", 2,
    ]  # fmt: skip
    run, few = tmp_path / "run", ["--num_threads", 1]
    scored = ["--num_images", 12, "--num_inference_steps", 2, "--resamples", 0, "--out", tmp_path / "scores"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))
        for words in (
            ["train", "--config", "recommended-32", "--data.source", tmp_path / "normal", "--out", run, *short,
             "--train.num_threads", 1],
            ["detect", run, tmp_path / "others", "--out", tmp_path / "found", *few],
            ["judge", f"{run}:train", "--out", tmp_path / "judge.safetensors", "--num_steps", 2, *few],
            ["evaluate", run, f"{run}:held_out", "--features", tmp_path / "judge.safetensors", *scored, *few],
        ):  # fmt: skip
            cli.main([str(word) for word in words])
    found = json.loads((tmp_path / "found" / "detection.json").read_text())
    assert (found["calibration"]["num_images"], len(found["images"])) == (20, 2)
    assert (tmp_path / "scores" / "evaluation.json").is_file()
