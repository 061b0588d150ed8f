"""Errors as a stranger meets them: one line each, with what was found, what was wanted, and what to do.

A list of bad files takes a line a file more. Each is caused for real, through the command line.
"""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from fastddpm import cli
from tests.forked import run_python

TINY = [
    "--model.block_out_channels", "[4,8]", "--model.time_embedding_dim", "8", "--train.batch_size", "8",
    "--train.num_images_seen", "16", "--train.mixed_precision", "no", "--scheduler.num_train_timesteps", "20",
    "--sample.num_images", "2", "--sample.num_inference_steps", "2", "--train.num_threads", "1",
]  # fmt: skip


@pytest.fixture
def images(tmp_path):
    """Twelve images of 8x8."""
    (tmp_path / "in").mkdir()
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "in" / f"{index}.png")
    return tmp_path / "in"


def error_in(text: str) -> str:
    """What the last line of a failed command says, without the name of the program; it is one line."""
    assert "Traceback" not in text
    assert text.count("fastddpm: error: ") == 1
    line = text[text.index("fastddpm: error: ") :].removesuffix("\n")
    assert "\n" not in line
    return line.removeprefix("fastddpm: error: ")


@pytest.fixture
def words(tmp_path):
    """The words of a command line that trains in `tmp_path`."""
    empty = tmp_path / "empty.yaml"
    empty.write_text("{}")

    def give(*more, config=empty, output_dir=None) -> list[str]:
        where = ["--out", str(output_dir or tmp_path / "run"), "--data.cache_dir", str(tmp_path / "cache")]
        return ["train", "--config", str(config), *TINY, *where, *map(str, more)]

    return give


@pytest.fixture
def train(words, capsys):
    """Run `fastddpm train` and give its error."""

    def run(*more, **options) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main(words(*more, **options))
        assert stop.value.code == 2
        return error_in(capsys.readouterr().err)

    return run


@pytest.fixture
def train_in_little_space(words):
    """The same in a process that may write files of so many bytes."""

    def run(most: int, *more) -> str:
        done = run_python(["-m", "fastddpm", *words(*more)], most_file_bytes=most)
        assert done.returncode == 2, done.stderr
        return error_in(done.stderr)

    return run


def test_f24_empty_folder(train, tmp_path):
    (tmp_path / "none").mkdir()
    text = train("--data.source", tmp_path / "none")
    assert text.startswith(f"{tmp_path / 'none'} holds no images: looked in all its folders for .png")
    assert text.endswith("give a folder, zip or file of images as data.source")
    assert not (tmp_path / "run").exists()


def test_no_such_folder(train, tmp_path):
    assert '/nowhere; wanted "digits", a folder, .zip or .tar of images' in train("--data.source", tmp_path / "nowhere")


def test_f24_one_image(train, images, tmp_path):
    for file in sorted(images.iterdir())[1:]:
        file.unlink()
    text = train("--data.source", images)
    assert "has 1 training image (0 held out), and train.batch_size wants 8 different ones a step; give more" in text
    assert "or --train.batch_size 1" in text
    assert not (tmp_path / "run").exists()


def test_nothing_stands_before_what_is_wrong_with_the_images(words, images, capsys):
    (images / "0.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit):
        cli.main(words("--data.source", images))
    assert capsys.readouterr().err.startswith(f"fastddpm: error: 1 bad file in {images}:\n  0.png ")


def test_f24_fewer_images_than_a_batch(train, images):
    text = train("--data.source", images, "--data.num_held_out", 5)
    assert "has 7 training images (5 held out), and train.batch_size wants 8" in text
    assert "--train.batch_size 7" in text


def test_more_held_out_than_there_are(train, images):
    text = train("--data.source", images, "--data.num_held_out", 12)
    assert "holds 12 images, each counted once, wanted 12 held out and at least 1 for training; lower" in text


def test_images_of_several_sizes(train, images):
    Image.new("L", (20, 9)).save(images / "other.png")
    assert "fit them to one with --data.image_size, such as 8" in train("--data.source", images)


@pytest.mark.slow
def test_f8_no_space_for_the_images(train_in_little_space, images):
    text = train_in_little_space(200, "--data.source", images)
    assert "has no room (File too large); what was saved before is whole: free some, or put --data.cache_dir" in text


def test_f8_no_space_for_a_checkpoint(train_in_little_space, images, tmp_path):
    text = train_in_little_space(6000, "--data.source", images)
    assert "step-00000002 could not be written (" in text
    assert "the one before it is whole: free some space or put --out on a larger disk, and start again" in text
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))


def test_no_permission(train, images):
    """Where not even root may make a folder."""
    text = train("--data.source", images, output_dir="/sys/kernel/run")
    assert text.startswith("/sys/kernel/run may not be read or written by this user (")
    assert "change its permissions, or choose another --out" in text


def test_a_file_where_a_folder_is_wanted(train, images, tmp_path):
    (tmp_path / "file").touch()
    text = train("--data.source", images, output_dir=tmp_path / "file" / "run")
    assert text.startswith(f"{tmp_path / 'file'} is a file, where a folder was wanted; move it away")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--train.batchsize", "8"], "unknown setting train.batchsize: did you mean --train.batch_size?"),
        (["--train.lr_num_cycles", "0"], "train.lr_num_cycles is 0; it must be at least 1"),
        (["--train.batch_size", "eight"], "train.batch_size is 'eight' (str); wanted int"),
        (["--train.learning_rate", "-1"], "train.learning_rate is -1.0; it must be at least 0"),
        (
            ["--watch.trackers", "[board]"],
            "trackers is 'board' (str); wanted tuple['tensorboard' | 'wandb' | 'trackio'",
        ),
        (["--data.background", "[300, 0, 0]"], "data.background is 300; it must be below 256"),
        (["--data.streaming", "true"], "set --data.image_size and --data.channels"),
        (["--data.held_out_split", "test"], "say how many images to hold out, as in --data.num_held_out 512"),
        (["train.batch_size", "8"], "got 'train.batch_size'; wanted --option VALUE"),
    ],
)
def test_wrong_setting(train, given, expected):
    assert expected in train(*given)


def test_wrong_config(train, tmp_path):
    (tmp_path / "broken.yaml").write_text("train: [")
    text = train(config=tmp_path / "broken.yaml")
    assert text.startswith(
        f"{tmp_path / 'broken.yaml'} is no valid YAML in line 1, column 9: expected the node content"
    )
    assert "no config 'nothing': give the path of a YAML file, or one of the packaged names: " in train(
        config="nothing"
    )
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG")
    assert f"{tmp_path / 'picture.yaml'} is no text (" in train(config=tmp_path / "picture.yaml")


def hide(monkeypatch, package):
    """As if it were not installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else found(name, *a))


@pytest.mark.parametrize(
    ("package", "extra", "settings"),
    [
        ("trackio", "trackio", ["--watch.trackers", "[trackio]"]),
        ("tensorboard", "tensorboard", ["--watch.trackers", "[tensorboard]"]),
        ("wandb", "wandb", ["--watch.trackers", "[wandb]"]),
        (
            "xformers",
            "xformers",
            ["--model.attention_levels", "[1]", "--model.attention_head_dim", "8", "--model.attention_backend"],
        ),
    ],
)
def test_missing_extra(train, images, monkeypatch, package, extra, settings):
    hide(monkeypatch, package)
    text = train("--data.source", images, *settings, *([package] if settings[-1].endswith("backend") else []))
    assert f"needs the package {package}, which is not installed; run pip install 'fastddpm[{extra}]', or " in text


def test_a_table_without_its_extra(train, tmp_path, monkeypatch):
    hide(monkeypatch, "datasets")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    missing = "needs the package datasets, which is not installed; run pip install 'fastddpm[tables]'"
    assert train("--data.source", tmp_path / "x.parquet") == f"data.source {tmp_path / 'x.parquet'} {missing}"
    where = "data.source user/pictures, which is no file or folder here, is a name on the Hub, and that"
    assert train("--data.source", "user/pictures") == f"{where} {missing}"


def test_a_file_where_the_run_folder_should_be(train, images, tmp_path):
    (tmp_path / "run").write_text("")
    text = train("--data.source", images)
    assert text == f"--out is {tmp_path / 'run'}, a file that is there; wanted a folder"


def test_fp16_without_a_gpu(train, images):
    text = train("--data.source", images, "--train.mixed_precision", "fp16")
    assert text == "train.mixed_precision fp16 needs a GPU and there is none; use --train.mixed_precision auto"


def test_compile_without_a_compiler_is_said_and_training_goes_on(words, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "")
    cli.main(words("--data.source", images, "--train.compile", "true"))
    said = capsys.readouterr().out
    assert "train.compile needs a C++ compiler and there is none: training goes on without it" in said
    assert (tmp_path / "run" / "model_index.json").exists()
