"""`fastddpm evaluate augmentation` from images to a report, at tiny size: real training, real drawing."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fastddpm import cli
from fastddpm.config import load_config, load_config_of
from fastddpm.data import load_splits
from fastddpm.studies.augmentation import gain as run
from fastddpm.studies.augmentation import generators as drawing
from fastddpm.studies.augmentation import measuring
from fastddpm.studies.augmentation.estimates import Accuracies, Accuracy, estimate
from fastddpm.studies.augmentation.gain import evaluate_augmentation
from fastddpm.studies.augmentation.generators import data_of, drawn_of, files_of, run_of, run_of_all
from fastddpm.studies.augmentation.settings import GainConfig
from fastddpm.studies.augmentation.subsets import Set, labelled_of
from tests.studies.augmentation.conftest import stripes, tiny
from tests.training.runs import free_port


@pytest.fixture(scope="module")
def done(source, tmp_path_factory):
    """A whole measurement: 6 and 9 labelled images, two seeds, t = 8 and 3, K = 2, 1 and (of 6) 3."""
    return evaluate_augmentation(tiny(tmp_path_factory.mktemp("done") / "out", source))


def record_of(folder):
    return json.loads((folder / "gain.json").read_text())


def stopped(done, folder):
    """The same measurement before anything was drawn."""
    folder.mkdir()
    for name in ("labelled", "generators"):
        shutil.copytree(done / name, folder / name)
    return folder


@pytest.mark.slow
def test_every_condition_is_measured_at_every_point(done):
    rows = [Accuracy(**row) for row in record_of(done)["accuracies"]]
    points = {6: [(8, 2), (3, 2), (8, 1), (8, 3)], 9: [(8, 2), (3, 2), (8, 1)]}
    wanted = {
        (size, seed, name, None, None, None) for size in points for seed in (0, 1) for name in ("reals", "classic")
    }
    wanted |= {
        (size, seed, name, kind, *point)
        for size in points for seed in (0, 1) for kind in ("own", "all") for point in points[size]
        for name in ("drawn", "both")
    }  # fmt: skip
    assert {tuple(vars(row).values())[:-1] for row in rows} == wanted
    assert len(rows) == len(wanted)
    assert len({row.accuracy for row in rows}) > 3


@pytest.mark.slow
def test_the_tables_are_those_of_the_accuracies(done):
    record = record_of(done)
    found = Accuracies([Accuracy(**row) for row in record["accuracies"]])
    for kind in ("own", "all"):
        assert record["tables"][kind][0] == found.row(6, kind, (8, 2))
        assert [row["num_labelled"] for row in record["tables"][kind]] == [6] * 4 + [9] * 3
    main = record["tables"]["all"][0]
    drawn = [
        row["accuracy"] for row in record["accuracies"]
        if (row["size"], row["condition"], row["kind"], row["start"], row["num"]) == (6, "drawn", "all", 8, 2)
    ]  # fmt: skip
    assert len(drawn) == 2
    assert main["accuracy"]["drawn"]["mean"] == pytest.approx(estimate(drawn).mean)


@pytest.mark.slow
def test_the_record_says_what_was_done(done, source):
    record = record_of(done)
    assert record["config"]["source"] == str(source)
    assert (record["num_pool"], record["num_held_out"]) == (40, 30)
    seen = {run["name"]: run["images_seen"] for run in record["generators"]}
    assert seen == {"0006-0": 12, "0006-1": 12, "0009-0": 12, "0009-1": 12, "all": 18}
    assert record["classifier_parameters"] == 2 * 26 + 4 * 19 + 8 * 37 + 3 * 129
    assert "torch" in record["versions"]
    assert any("no interval" in sentence for sentence in record["limits"])
    assert {(row["size"], row["kind"], row["start"]) for row in record["labels_kept"]} == {
        (size, kind, start) for size in (6, 9) for kind in ("own", "all") for start in (3, 8)
    }
    assert all(0 <= row["share"] <= 1 for row in record["labels_kept"])


@pytest.mark.slow
def test_the_page_has_both_tables_and_asks_nothing_of_a_network(done):
    page = (done / "gain.html").read_text()
    assert "trained on the labelled images only" in page
    assert "trained on all images, without labels" in page
    assert page.count("<svg") == 10
    assert page.count("(d) reals + drawn, classic augmentation") == 2
    assert re.search(r'class="(good|bad|open)">(pays|costs|no difference shown)<', page)
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    for kind in ("own", "all"):
        assert Image.open(done / f"gain-{kind}.png").width > 500


@pytest.mark.slow
def test_what_is_learnt_from_and_what_is_tested_on_share_no_image(done, source):
    config = tiny(done, source)
    held_out = {image.tobytes() for image in labelled_of(load_splits(data_of(config), seed=0).held_out).images}
    assert len(held_out) == 30
    of_all = run_of_all(config)
    pool = {image.tobytes() for image in labelled_of(load_splits(of_all.data, seed=of_all.seed).train).images}
    assert len(pool) == 40
    for size in (6, 9):
        chosen = [{i.tobytes() for i in np.load(done / "labelled" / f"{size:04d}-{s}.npz")["images"]} for s in (0, 1)]
        assert len(chosen[0]) == size
        assert chosen[0] != chosen[1]
        assert all(images < pool and not images & held_out for images in chosen)
    assert not pool & held_out


@pytest.mark.slow
def test_each_generator_is_trained_on_its_own_images_and_the_one_of_all_without_labels(done, source):
    config = tiny(done, source)
    own = run_of(config, Set(9, 1))
    assert own.data.source == str(done / "labelled" / "0009-1.npz")
    assert own.model.class_conditional
    assert load_config(done / "generators" / "0009-1" / "config.yaml") == own
    assert len(load_splits(own.data, seed=own.seed).train) == 9
    assert not run_of_all(config).model.class_conditional
    assert run_of(config, Set(9, 0)).seed != own.seed


@pytest.mark.slow
def test_a_smaller_k_is_part_of_a_larger_one(done, source):
    config = tiny(done, source)
    one, two, three = (drawn_of(config, Set(6, 0), "own", (8, num), 3) for num in (1, 2, 3))
    assert [len(lesson.images) for lesson in (one, two, three)] == [6, 12, 18]
    assert one.images.equal(three.images[::3])
    assert two.images.equal(three.images.reshape(6, 3, 1, 8, 8)[:, :2].reshape(12, 1, 8, 8))
    labels = np.load(done / "labelled" / "0006-0.npz")["labels"]
    assert three.targets.argmax(1).tolist() == np.repeat(labels, 3).tolist()
    assert not drawn_of(config, Set(6, 0), "all", (8, 2), 3).images.equal(two.images)


def test_a_file_holds_the_largest_k_of_a_start():
    assert files_of([(300, 4), (100, 4), (500, 4), (300, 1), (300, 16)]) == {300: 16, 100: 4, 500: 4}


@pytest.mark.slow
def test_started_again_it_does_nothing_again(done, source, capsys):
    before = {path: path.stat().st_mtime_ns for name in ("drawn", "labelled") for path in (done / name).iterdir()}
    record = record_of(done)
    evaluate_augmentation(tiny(done, source, title="<b>again"))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    again = record_of(done)
    assert (again.pop("title"), record.pop("title")) == ("<b>again", "stripes")
    assert again.pop("config")["title"] == "<b>again"
    record.pop("config")
    assert again == record
    assert "[5/5] report" in capsys.readouterr().out
    page = (done / "gain.html").read_text()
    assert "<b>" not in page
    assert page.count("&lt;b&gt;again") == 3, "title, heading, settings"


PART = {"num_labelled": [6], "generator.of_all": None, "drawing.start_timesteps": [], "drawing.nums_per_image": [3]}
"""of a whole measurement, the same images and classifiers, but fewer"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["draw", "learn"])
def test_stopped_in_the_middle_it_ends_as_an_unbroken_one(done, source, tmp_path, monkeypatch, stage):
    folder = stopped(done, tmp_path / "out")
    where = run if stage == "draw" else measuring
    original, calls = getattr(where, stage), []

    def stopping(*given, **settings):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*given, **settings)

    monkeypatch.setattr(where, stage, stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate_augmentation(tiny(folder, source, **PART))
    assert not (folder / "gain.json").exists()
    evaluate_augmentation(tiny(folder, source, **PART))
    if stage == "learn":  # of 12 classifiers, and the one that looks at labels, the second one twice
        assert len(calls) == 12 + 1 + 1, "what was learnt is not learnt again"
    rows = record_of(folder)["accuracies"]
    assert len(rows) == 12
    assert all(row in record_of(done)["accuracies"] for row in rows)


@pytest.mark.slow
def test_blends_are_learnt_with_soft_labels(done, source, tmp_path):
    folder = stopped(done, tmp_path / "out")
    config = tiny(
        folder, source, num_labelled=[6], **{"generator.of_all": None, "drawing.mode": "cutmix",
        "drawing.start_timesteps": [], "drawing.nums_per_image": []},
    )  # fmt: skip
    evaluate_augmentation(config)
    assert list(record_of(folder)["tables"]) == ["own"]
    targets = drawn_of(config, Set(6, 0), "own", (8, 2), 3).targets
    assert targets.sum(1).numpy() == pytest.approx(np.ones(12), abs=1e-5)
    assert ((targets > 0.01) & (targets < 0.99)).any()
    assert not (folder / "gain-all.png").exists()


@pytest.mark.slow
def test_other_settings_are_refused_and_nothing_is_lost(done, source):
    before = record_of(done)
    with pytest.raises(
        ValueError, match=r"other settings: num_seeds was 2, now 3; drawing\.num_per_image was 2, now 1"
    ):
        evaluate_augmentation(tiny(done, source, num_seeds=3, **{"drawing.num_per_image": 1}))
    assert record_of(done) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_labelled": [9, 6]}, r"num_labelled is \[9, 6\]; wanted different numbers in rising order"),
        ({"num_labelled": []}, r"num_labelled is \[\]; wanted different numbers"),
        ({"num_labelled": [2, 6]}, "goes down to 2 and there are 3 classes"),
        ({"num_labelled": [6, 40]}, "num_labelled goes up to 40, up to 14 of each of 3 classes"),
        ({"num_labelled": [6, 41]}, "num_unlabelled is 40 and num_labelled goes up to 41"),
        ({"num_seeds": 1}, "num_seeds is 1; it must be at least 2"),
        ({"num_held_out": 60}, "60 held out and 40 for training; lower --num_held_out or --num_unlabelled"),
        ({"num_held_out": 0}, "num_held_out is 0; it must be at least 1"),
        ({"drawing.start_timestep": 21}, "start_timestep is 21; it counts denoising steps, from 1 to 20"),
        ({"drawing.num_inference_steps": 4}, "num_inference_steps is 4; from start_timestep 3 it must be 1 to 3"),
        ({"drawing.start_timesteps": [0]}, r"drawing\.start_timesteps is 0; it must be at least 1"),
        ({"drawing.mode": "samples"}, "drawing.mode is 'samples'"),
        ({"classifier.share_drawn": 1.0}, r"share_drawn is 1\.0; it must be below 1"),
        ({"classic.elastic": -1.0}, r"classic\.elastic is -1\.0; it must be at least 0"),
        ({"classic.smoothness": 0.0}, r"classic\.smoothness is 0\.0; it must be above 0"),
        ({"generator.overrides.train.batch_size": 8}, r"train\.batch_size is 8 and the smallest labelled set has 6"),
        ({"generator.overrides.train.batch_sise": 3}, r"unknown setting train\.batch_sise: did you mean"),
        ({"num_label": 3}, "unknown setting num_label: did you mean --num_labelled"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(source, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        evaluate_augmentation(tiny(tmp_path / "out", source, **settings))
    assert not (tmp_path / "out").exists()


def test_images_that_no_accuracy_is_of_are_refused(tmp_path):
    images, labels = stripes(90)
    np.savez(tmp_path / "plain.npz", images=images)
    np.savez(tmp_path / "small.npz", images=images[:, :6, :6], labels=labels)
    for name, message in (("plain", "the images have no labels"), ("small", "images are 6x6; .* at least 8x8")):
        with pytest.raises(ValueError, match=message):
            evaluate_augmentation(tiny(tmp_path / "out", tmp_path / f"{name}.npz"))
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused(source, tmp_path, monkeypatch):
    config = tiny(tmp_path / "out", source)

    def again(*_, **__):
        with pytest.raises(ValueError, match="is in use by a running job"):
            evaluate_augmentation(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "save_labelled", again)
    with pytest.raises(KeyboardInterrupt):
        evaluate_augmentation(config)


def test_the_command_line(source, tmp_path, capsys, monkeypatch):
    words = ["evaluate", "augmentation", "--source", str(source), "--out", str(tmp_path / "out")]
    cli.main([*words, "--num_seeds", "7", "--dry_run"])
    shown = tmp_path / "shown.yaml"
    shown.write_text(capsys.readouterr().out)
    config = load_config_of(GainConfig, shown)
    assert (config.source, config.output_dir, config.num_seeds) == (str(source), str(tmp_path / "out"), 7)
    assert config.drawing.start_timestep == 300
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--num_labelled", "[2]", "--num_held_out", "10", "--num_unlabelled", "60"])
    assert stop.value.code == 2
    assert "there are 3 classes" in capsys.readouterr().err
    cli.main(["evaluate", "augmentation", "--help"])
    assert "--drawing.num_per_image  int = 4" in capsys.readouterr().out
    cli.main(["evaluate", "--help"])
    assert "fastddpm evaluate augmentation" in capsys.readouterr().out


def test_the_packaged_measurement_is_whole(tmp_path):
    config = load_config_of(GainConfig, "gain-mnist", {"output_dir": str(tmp_path)})
    assert config.num_labelled == (50, 200, 1000)
    assert config.num_seeds == 5
    assert config.num_held_out == 10_000
    assert config.drawing.points(1000) == [(300, 4)]
    assert set(config.drawing.points(50)) > {(300, 4), (300, 1), (300, 16)}
    own, of_all = run_of(config, Set(50, 0)), run_of_all(config)
    assert own.model.class_conditional
    assert own.train.batch_size <= 50
    assert of_all.data.num_held_out == 10_000
    assert of_all.train.num_images_seen > own.train.num_images_seen


@pytest.mark.slow
def test_several_processes_are_refused(source, tmp_path):
    words = ["evaluate", "augmentation", "--source", str(source), "--out", str(tmp_path / "out")]
    launched = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port()),
         "-m", "fastddpm", *words],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert launched.returncode != 0
    assert "got 2 processes, and the classifiers are trained on one; start it without a launcher" in launched.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_stopped_while_a_generator_trains_it_goes_on(source, tmp_path, monkeypatch):
    original, calls = run.train_generator, []

    def stopping(given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(given)

    monkeypatch.setattr(run, "train_generator", stopping)
    settings = {"generator.of_all": None, "num_labelled": [6], "drawing.start_timesteps": []}
    with pytest.raises(KeyboardInterrupt):
        evaluate_augmentation(tiny(tmp_path / "out", source, **settings))
    weights = (tmp_path / "out" / "generators" / "0006-0" / "samples.png").stat().st_mtime_ns
    folder = evaluate_augmentation(tiny(tmp_path / "out", source, **settings))
    assert (folder / "generators" / "0006-0" / "samples.png").stat().st_mtime_ns == weights
    assert len(record_of(folder)["tables"]["own"]) == 3
    assert drawing.drawn_of(tiny(folder, source, **settings), Set(6, 1), "own", (8, 3), 3).images.shape[0] == 18
