"""The verbs, as they are called."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from fastddpm import FastDDPMPipeline, cli
from fastddpm.data.store_filling import Part


@pytest.fixture
def saved(unet, scheduler, tmp_path):
    FastDDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def saved_with_labels(labelled_unet, scheduler, tmp_path):
    FastDDPMPipeline(labelled_unet, scheduler).save_pretrained(tmp_path / "labelled")
    return tmp_path / "labelled"


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def test_sample_writes_a_file_an_image_named_by_its_seed(saved, tmp_path):
    cli.main(["sample", str(saved), "--num_images", "3", "--seed", "5", "--out", str(tmp_path / "out")])
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["000005.png", "000006.png", "000007.png"]
    assert Image.open(tmp_path / "out" / "000005.png").size == (8, 8)


def test_an_image_of_a_seed_comes_again_in_another_call(saved, tmp_path):
    for name, seed, count in (("a", 0, 3), ("b", 2, 1)):
        cli.main(["sample", str(saved), "--num_images", str(count), "--seed", str(seed), "--out", str(tmp_path / name)])
    assert np.abs(pixels(tmp_path / "a" / "000002.png") - pixels(tmp_path / "b" / "000002.png")).max() <= 1


def test_sample_writes_a_grid(saved, tmp_path, capsys):
    cli.main(["sample", str(saved), "--num_images", "4", "--out", str(tmp_path / "new" / "grid.png")])
    assert Image.open(tmp_path / "new" / "grid.png").size[0] > 16
    assert "4 images: " in capsys.readouterr().out


def test_sample_goes_through_the_classes(saved_with_labels, tmp_path):
    for name, words in (("all", []), ("one", ["--class_label", "1"])):
        cli.main(["sample", str(saved_with_labels), "--num_images", "3", "--out", str(tmp_path / name), *words])
    same = [
        np.array_equal(pixels(tmp_path / "all" / f), pixels(tmp_path / "one" / f)) for f in ("000000.png", "000001.png")
    ]
    assert same == [False, True]


def test_vary_writes_variations_of_each_image(saved, tmp_path, image_folder):
    inputs = [str(image_folder / "dark" / name) for name in ("00.png", "01.png")]
    words = ["--start_timesteps", "5", "--num_images", "2", "--out", str(tmp_path / "out")]
    cli.main(["vary", str(saved), *inputs, *words])
    names = ["00-000.png", "00-001.png", "01-000.png", "01-001.png"]
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == names
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert [(row["file_name"], row["seed"], row["variation_of"]) for row in rows] == [
        ("00-000.png", 0, inputs[0]), ("00-001.png", 1, inputs[0]), ("01-000.png", 2, inputs[1]),
        ("01-001.png", 3, inputs[1]),
    ]  # fmt: skip


def test_vary_writes_the_formats_of_sample(saved, tmp_path, image_folder):
    image = str(image_folder / "dark" / "00.png")
    words = ["--start_timesteps", "5", "--num_images", "3", "--scheduler", "dpmsolver++"]
    for name in ("folder", "a.npz", "a.parquet", "a.png"):
        cli.main(["vary", str(saved), image, *words, "--out", str(tmp_path / "out" / name)])
    images = np.load(tmp_path / "out" / "a.npz")["images"]
    assert images.shape == (3, 8, 8)
    for k in range(3):
        assert np.array_equal(images[k], pixels(tmp_path / "out" / "folder" / f"00-{k:03d}.png"))
    assert Image.open(tmp_path / "out" / "a.png").size[0] > Image.open(tmp_path / "out" / "a.png").size[1]
    assert (tmp_path / "out" / "a.parquet").stat().st_size > 0


def test_vary_from_timestep_0_gives_the_image_back(saved, tmp_path, image_folder):
    image = image_folder / "dark" / "00.png"
    words = ["--start_timesteps", "0", "--num_images", "1", "--out", str(tmp_path / "out")]
    cli.main(["vary", str(saved), str(image), *words])
    assert np.array_equal(pixels(tmp_path / "out" / "00-000.png"), pixels(image))


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        cli.main(list(words))
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--train.batchsize", "3"], "did you mean --train.batch_size?"),
        (["train", "--train.batch_size"], "--train.batch_size has no value"),
        (["train", "fast"], "got 'fast'; wanted --option VALUE"),
        (["train", "--config", "nothing.yaml"], "no config 'nothing.yaml'"),
        (["train", "--data.source", "/nowhere"], "/nowhere"),
        (["sample", "/nowhere/at/all", "--out", "x.png"], "/nowhere/at/all"),
    ],
)
def test_mistakes_end_with_one_line_and_code_2(capsys, words, message):
    error = refused(capsys, *words)
    assert message in error
    assert error.startswith("fastddpm: error: ")
    assert "Traceback" not in error


def test_an_interrupt_ends_with_one_line_and_leaves_what_was_done(capsys, tmp_path, image_folder, monkeypatch):
    def interrupted(self, *arguments):
        append(self, *arguments)
        os.kill(os.getpid(), signal.SIGINT)

    append = Part.append
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start without it
    words = ["ingest", str(image_folder), "--data.cache_dir", str(tmp_path / "cache")]
    monkeypatch.setattr(Part, "append", interrupted)
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.value.code == 130
    said = capsys.readouterr().err
    assert said.endswith("fastddpm: stopped; the same command goes on from what was kept\n")
    assert "Traceback" not in said
    assert len(list((tmp_path / "cache").glob("*.part/journal.jsonl"))) == 1


def test_dry_run_prints_the_config_and_the_parameter_count(capsys, tmp_path, image_folder):
    words = [
        "--config", "mnist-paper", "--data.source", str(image_folder), "--data.num_held_out", "4",
        "--data.num_images", "20", "--model.block_out_channels", "[4, 8]", "--train.batch_size=4",
    ]  # fmt: skip
    cli.main(["train", "--dry_run", "--out", str(tmp_path / "run"), *words])
    out = capsys.readouterr().out
    config, (first, last, compiled) = yaml.safe_load(out), out.strip().splitlines()[-3:]
    assert config["train"]["batch_size"] == 4
    assert config["model"]["block_out_channels"] == [4, 8]
    assert "parameters; " in first
    assert first.endswith("20 training images of 1x8x8")
    assert last.startswith("# expected peak memory: 0.1 MiB of tensors a process (estimate: weights ")
    assert last.endswith("of 4 images; Python and libraries on top)")
    assert compiled.startswith("# train.compile auto: ")
    assert not (tmp_path / "run").exists()


def test_dry_run_says_what_auto_and_crops_come_to(capsys, tmp_path, image_folder):
    words = [
        "--data.source", str(image_folder), "--train.batch_size", "6", "--train.micro_batch_size", "auto",
        "--train.random_crop", "4", "--model.block_out_channels", "[4, 8]", "--data.num_held_out", "4",
    ]  # fmt: skip
    cli.main(["train", "--dry_run", "--config", "mnist-paper", "--data.num_images", "20", *words])
    first, last, _ = capsys.readouterr().out.strip().splitlines()[-3:]
    assert first.endswith("20 training images of 1x8x8, in crops of 1x4x4")
    assert last.endswith("of 6 images; Python and libraries on top)")


def test_module_runs_as_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "fastddpm", "train", "--seed"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "--seed has no value" in done.stderr


def test_a_reader_of_help_may_leave():
    words = [sys.executable, "-m", "fastddpm", "train", "--help"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as told:
        told.stdout.close()
        assert told.stderr.read() == ""


def test_ingest_says_what_it_found_and_draws_a_sheet(image_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))
    (image_folder / "dark" / "copy.png").write_bytes((image_folder / "dark" / "00.png").read_bytes())
    (image_folder / "notes.txt").touch()
    cli.main(["ingest", str(image_folder), "--out", str(tmp_path / "out"), "--data.num_held_out", "4"])
    lines = capsys.readouterr().out.splitlines()
    assert f"{image_folder}: 25 images, stored as 8x8 with 1 channel" in lines
    assert "  sizes: 8x8 (25)" in lines
    assert "  modes: L (25)" in lines
    assert "  copies of another image: 1" in lines
    assert "  2 class folders" in lines
    assert "  1 file of other kinds, or not listed, left out" in lines
    found = json.loads((tmp_path / "out" / "data.json").read_text())
    assert sum(found["labels"].values()) == found["num_train"]
    assert f"  2 labels: dark ({found['labels']['dark']}), light ({found['labels']['light']})" in lines
    assert found["other_files"] == ["notes.txt"]
    assert found["num_train"] + found["num_held_out"] + found["num_copies_of_held_out_left_out"] == 25
    sheet = Image.open(tmp_path / "out" / "data.png")
    assert sheet.size[0] > 10 * 8 * 8 > 2 * sheet.size[1]  # two rows of ten


def test_ingest_names_bad_files(image_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))
    (image_folder / "dark" / "empty.png").touch()
    with pytest.raises(SystemExit) as stop:
        cli.main(["ingest", str(image_folder)])
    assert stop.value.code == 2
    assert "dark/empty.png is empty (0 bytes)" in capsys.readouterr().err
