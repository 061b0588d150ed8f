"""Previews, KID, copies and the page, on tiny real runs; and that training does not notice."""

import json
import re
import shlex
import shutil
import subprocess
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastddpm.cli import main
from fastddpm.training import pace, watch
from fastddpm.training import run as run_module
from fastddpm.training.cost import Cost
from fastddpm.training.metrics import MetricsLog
from fastddpm.training.near_copies import in_words
from tests.measures.test_features import Pooled, saved
from tests.training.runs import final_tensors, metrics, start, train_here

PICTURES = ("samples.png", "denoising.png", "variations.png", "loss.png", "nearest.png", "progress.png", "progress.gif")


@pytest.fixture
def train(tmp_path, image_folder):
    """Train in this process; the run folder."""
    return lambda name="run", **options: train_here(tmp_path / name, image_folder, **options)


def rows_with(folder: Path, key: str) -> list[dict]:
    return [row for row in metrics(folder) if key in row]


def previews(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path)["images"] for path in sorted((folder / "previews").glob("*.npz"))}


def test_f32_previews_do_not_disturb_training(train, tmp_path):
    off = train("off", **{"watch.nearest": "false"})
    watched = {"watch.preview_every_images": "40", "watch.kid_every_images": "80", "watch.kid_num_samples": "10"}
    on = train("on", **watched, **{"watch.features": saved(Pooled(), tmp_path / "features.pt")})
    first, second = final_tensors(off), final_tensors(on)
    assert len(first) > 100
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    for key in ("loss", "held_out_loss"):
        assert rows_with(on, key) == rows_with(off, key)
    assert not (off / "nearest.png").exists()
    assert [row["images_seen"] for row in rows_with(on, "kid")] == [80, 160]


def test_a_preview_comes_after_the_first_step_that_reaches_each_multiple(train):
    folder = train(**{"watch.preview_every_images": "50", "sample.num_images": "5"})
    assert list(previews(folder)) == [f"{n:012d}" for n in (56, 104, 152, 160)], "and at the end"
    assert all(images.shape == (5, 1, 8, 8) for images in previews(folder).values())
    for name in PICTURES:
        with Image.open(folder / name) as picture:
            picture.verify()
    page = (folder / "report.html").read_text()
    assert page.count('src="data:image/') == 7, "all pictures but loss.png, whose curves it draws"
    for words in ("finished", "held-out images", "share of the device", "n/a", "DiffusionPipeline.from_pretrained"):
        assert words in page


@pytest.mark.slow
def test_previews_of_a_broken_run_are_those_of_an_unbroken_one(train, tmp_path):
    settings = {"watch.preview_every_images": "40"}
    straight, broken = train("straight", **settings), tmp_path / "broken"
    with pytest.raises(RuntimeError, match="in the middle"):
        train("broken", fail_at=17, **settings)
    assert list(previews(broken))[-1] == f"{120:012d}", "later than its checkpoint at 80"
    page = (broken / "report.html").read_text()
    assert "75% of 160 images" in page
    assert "samples-so-far.png" in page
    train("broken", **settings)
    first, second = previews(straight), previews(broken)
    assert list(first) == list(second) == [f"{n:012d}" for n in (40, 80, 120, 160)]
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert metrics(straight) == metrics(broken)
    for name in ("progress.png", "samples.png", "nearest.png"):
        assert (straight / name).read_bytes() == (broken / name).read_bytes()


@pytest.mark.slow
def test_two_processes_draw_the_pixels_of_one(train, tmp_path, image_folder):
    settings = {
        "watch.preview_every_images": "80", "sample.num_images": "5", "sample.micro_batch_size": "2",
        "watch.kid_every_images": "80", "watch.kid_num_samples": "11", "watch.trackers": "[tensorboard]",
        "watch.features": saved(Pooled(), tmp_path / "features.pt"), "train.num_processes": "2",
    }  # fmt: skip
    two = start(tmp_path / "two", image_folder, processes=2, **settings)
    assert two.returncode == 0, two.stderr
    assert "cpu, 2 processes" in two.stdout
    assert [row["kid_num_samples"] for row in rows_with(tmp_path / "two", "kid")] == [11, 11]
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    shutil.rmtree(tmp_path / "one" / "previews")
    (tmp_path / "one" / "samples.png").unlink()
    train("one", **{**settings, "train.num_processes": "1"})
    (name, drawn), *_ = previews(tmp_path / "one").items()
    assert drawn.shape == (5, 1, 8, 8)
    assert len(np.unique(drawn.reshape(5, -1), axis=0)) == 5
    assert np.array_equal(drawn, previews(tmp_path / "two")[name])
    assert (tmp_path / "one" / "samples.png").read_bytes() == (tmp_path / "two" / "samples.png").read_bytes()
    assert metrics(tmp_path / "one") == metrics(tmp_path / "two"), "a finished run measures nothing twice"


def test_losses_of_the_averaged_weights_are_comparable(train):
    folder = train(
        **{
            "train.evaluate_every": "5",
            "train.learning_rate": "1e-12",
            "data.num_held_out": "0",
            "model.norm_type": "group",
            "model.norm_num_groups": "2",
        }
    )
    found = [row["train_set_loss"] for row in rows_with(folder, "train_set_loss")]
    assert len(found) == 4
    assert found == pytest.approx([found[0]] * 4, rel=1e-6), (
        "the same noise each time: only the weights could change it"
    )
    assert not rows_with(folder, "held_out_loss")


@pytest.mark.slow
def test_training_loss_is_on_as_many_images_and_falls_below_the_held_out_one_when_it_memorizes(train):
    settings = {
        "data.num_images": "4", "train.batch_size": "4", "train.num_images_seen": "2400", "train.learning_rate": "1e-2",
        "train.lr_schedule": "constant", "train.horizontal_flip": "false", "train.log_every": "300",
        "train.checkpoint_every": "0", "model.block_out_channels": "[16, 32]",
    }  # fmt: skip
    (row,) = rows_with(train(**settings), "train_set_loss")
    assert row["train_set_loss"] < 0.8 * row["held_out_loss"]


class RootOfSpread(torch.nn.Module):
    """Features that are not finite where an image's spread is above, or with a sign of -1 below, some grey levels."""

    def __init__(self, levels: float, sign: float):
        super().__init__()
        self.levels, self.sign = levels, sign

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return ((self.levels - images.float().flatten(2).std(2)) * self.sign).sqrt()


def test_features_that_are_not_finite_are_refused_by_name(train, tmp_path, capsys):
    settings = {"watch.kid_every_images": "80", "watch.kid_num_samples": "10"}
    samples = {**settings, "watch.features": saved(RootOfSpread(45, 1), tmp_path / "samples.pt")}
    assert rows_with(train("run", **samples), "kid") == []
    said = capsys.readouterr().out
    assert "warning: no KID at 80 images: watch.features samples.pt makes no finite numbers of 10 of 10 samples" in said
    reals = {**settings, "watch.features": saved(RootOfSpread(45, -1), tmp_path / "reals.pt")}
    with pytest.raises(ValueError, match="watch.features reals.pt makes no finite numbers of 10 of 10 training images"):
        train("reals", **reals)


def test_kid_takes_held_out_images_only_if_there_are_enough(train, tmp_path):
    settings = {"watch.kid_every_images": "160", "watch.features": saved(Pooled(), tmp_path / "features.pt")}
    for held_out, reals, count in (("12", "held_out", 12), ("4", "training", 12)):
        chosen = {**settings, "watch.kid_num_samples": "12", "data.num_held_out": held_out}
        (row,) = rows_with(train(f"run-{held_out}", **chosen), "kid")
        assert (row["kid_reals"], row["kid_num_reals"], row["kid_num_samples"]) == (reals, count, 12)
        assert row["kid_interval"][0] < row["kid"] < row["kid_interval"][1]
        assert (row["kid_features"], len(row["kid_features_sha256"])) == ("features.pt", 64)


def test_a_run_that_memorizes_warns_once_and_says_what_to_do(train, capsys, monkeypatch):
    """Its "samples" are copies: the network is replaced by nothing, the drawing by the training images themselves."""

    def copies(run, num_images, title):
        return run.images.gather(torch.arange(num_images) % len(run.images))[0].numpy()

    monkeypatch.setattr(watch, "draw_samples", copies)
    folder = train(**{"watch.preview_every_images": "40", "sample.num_images": "16"})
    printed = capsys.readouterr().out
    assert printed.count("warning: Samples look like copies of training images: 16 of 16") == 1
    assert "train.num_images_seen" in printed
    rows = rows_with(folder, "nearest_verdict")
    assert [row["nearest_verdict"] for row in rows] == ["copies"] * 4
    assert rows[-1]["nearest_median_distance"] == 0
    assert 'class="verdict bad">Samples look like copies' in (folder / "report.html").read_text()


def test_fresh_samples_warn_of_nothing(train, capsys, monkeypatch):
    """The drawing is replaced by images like those of the folder, none of which is among them."""

    def fresh(run, num_images, title):
        rng = np.random.default_rng(1)
        return (
            rng.integers(0, 100, (num_images, 1, 8, 8)) + 150 * (np.arange(num_images) % 2)[:, None, None, None]
        ).astype(np.uint8)

    monkeypatch.setattr(watch, "draw_samples", fresh)
    (row,) = rows_with(train(**{"sample.num_images": "32"}), "nearest_verdict")
    assert row["nearest_verdict"] == "no copies"
    assert (row["nearest_reals"], row["nearest_num_reals"], row["nearest_num_compared"]) == ("held_out", 4, 20)
    assert "warning" not in capsys.readouterr().out
    assert row["nearest_median_distance_of_reals"] > 0, "which says whether the samples' distance is large"


def test_a_page_of_noise_gets_no_verdict_and_no_green(train, tmp_path):
    """The images are flat, the network has learnt nothing: none of its samples is a copy, which says nothing."""
    rng = np.random.default_rng(0)
    (tmp_path / "flat").mkdir()
    for i, level in enumerate(rng.permutation(240)[:40]):
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(tmp_path / "flat" / f"{i:02d}.png")
    settings = {"data.source": str(tmp_path / "flat"), "train.learning_rate": "1e-12", "sample.num_images": "64",
                "data.num_held_out": "12"}  # fmt: skip
    folder = train(**settings)
    (row,) = rows_with(folder, "nearest_verdict")
    assert (row["nearest_verdict"], row["nearest_unlike"]) == ("cannot tell", "farther from every training image")
    page = (folder / "report.html").read_text()
    assert "verdict good" not in page
    assert "no verdict" in page
    assert "the samples are not like the images yet, since half of them are farther from every training image" in page


def test_a_finished_run_started_again_says_so_and_draws_what_is_missing(train, capsys, monkeypatch):
    folder = train()
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}
    capsys.readouterr()
    train()
    assert f"{folder} is finished already, 160 images seen" in capsys.readouterr().out
    again = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}
    assert {path.name for path in before if again[path] != before[path]} <= {
        "config.yaml",
        "metrics.jsonl",
        "README.md",
    }
    (folder / "variations.png").unlink()
    (folder / "report.html").unlink()
    monkeypatch.setattr(watch, "draw_samples", None)  # no sample is drawn anew
    train()
    assert (folder / "variations.png").stat().st_mtime_ns > before[folder / "samples.png"]
    assert (folder / "report.html").exists()


def test_first_picture_comes_within_the_first_minute_and_the_console_says_where(train, capsys, monkeypatch):
    """Here within the first steps."""
    monkeypatch.setattr(pace, "MEASURED_STEPS", 3)
    monkeypatch.setattr(pace, "FIRST_PICTURE_SECONDS", 0.0)
    plain, folder = train("plain", **{"watch.preview_every_images": "160"}), train(**{"train.num_images_seen": "160"})
    said = capsys.readouterr().out
    path = folder / "previews" / "first.png"
    assert f"s of training: {path}" in said
    assert "images a second: " in said
    with Image.open(path) as picture:
        picture.verify()
    assert final_tensors(plain).keys() == final_tensors(folder).keys()
    assert all(torch.equal(tensor, final_tensors(folder)[name]) for name, tensor in final_tensors(plain).items())


def test_end_says_what_was_learnt_and_what_comes_next(train, capsys, monkeypatch):
    folder = train(**{"sample.num_images": "32"})
    *_, said = capsys.readouterr().out.partition("learnt: ")
    line, commands = said.splitlines()[0], said.partition("next:")[2].split("\n")[1:4]
    assert re.match(r"\d+ seconds? of training; \d\.\d{4} loss on held-out images; ", line)
    words = [shlex.split(command) for command in commands]
    assert [found[1] for found in words] == ["sample", "vary", "demo" if find_spec("gradio") else "cutmix"]
    (called,) = {found[0] for found in words}
    assert "train" in subprocess.run([called, "--help"], capture_output=True, text=True, check=True, timeout=120).stdout
    monkeypatch.chdir(folder.parent)
    for found in words[:2]:
        main(found[1:])
        assert Path(found[-1]).exists()


def test_a_verdict_that_cannot_be_told_names_what_is_too_few(train):
    """Two samples of a model of 20 images: it is the samples that are too few."""
    folder = train(**{"sample.num_images": "2"})
    (row,) = rows_with(folder, "nearest_verdict")
    assert row["nearest_verdict"] == "cannot tell"
    page = (folder / "report.html").read_text()
    assert "cannot be told: 2 samples and 4 held-out images to compare them with are too few" in page
    assert "give a larger sample.num_images, or data.num_held_out; look at nearest.png" in page
    few = {**row, "nearest_num_compared": 2}
    assert "there are 2 different ones, and a model of so few can do little but repeat them" in in_words(few, 2)


def test_crops_are_said_to_be_compared_by_their_middle(train):
    folder = train(**{"train.random_crop": "6", "sample.num_images": "32", "train.vertical_flip": "true"})
    (row,) = rows_with(folder, "nearest_verdict")
    for verdict in ("no sign of copies", "copies"):
        said = in_words({**row, "nearest_verdict": verdict}, row["nearest_num_compared"])
        assert "compared by their middle only: copies of other random crops are not found." in said
    page = (folder / "report.html").read_text()
    assert "8 x 8, grayscale, in crops of 6 x 6" in page


def test_throughput_does_not_count_previews():
    log = MetricsLog(Path("unused"), enabled=False)
    log.start_clock(0)
    with log.paused():
        time.sleep(0.2)
    assert log.throughput(10, 0.0)[0] > 10 / 0.1


def test_share_of_the_peak_stands_in_the_rows_when_it_is_known(train, monkeypatch):
    built = run_module._build
    known = Cost(memory=None, reason="", flops_per_image=1e3, peak_flops=1e12)
    monkeypatch.setattr(run_module, "_build", lambda *parts: replace(built(*parts), cost=known))
    folder = train()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len([row for row in rows if row.get("peak_share") is not None]) == 5
    assert ">share of the device&#39;s peak</dt><dd>0.0%" in (folder / "report.html").read_text()
