"""Errors as a stranger meets them: one line each, with what was found, what was wanted, and what to do.

A list of bad files takes a line a file more. Each is caused for real, through the command line.
"""

import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

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


@pytest.fixture
def train(tmp_path):
    """Run `fastddpm train` and give its error, without the name of the program."""
    empty = tmp_path / "empty.yaml"
    empty.write_text("{}")

    def run(*words, config=empty, output_dir=None, before=None, **env) -> str:
        where = ["--output_dir", str(output_dir or tmp_path / "run"), "--data.cache_dir", str(tmp_path / "cache")]
        done = subprocess.run(
            [sys.executable, "-m", "fastddpm", "train", "--config", str(config), *TINY, *where, *map(str, words)],
            capture_output=True, text=True, check=False, timeout=240, env=os.environ | env, preexec_fn=before,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("fastddpm: error: "))
        return line.removeprefix("fastddpm: error: ")

    return run


def test_empty_folder(train, tmp_path):
    (tmp_path / "none").mkdir()
    text = train("--data.source", tmp_path / "none")
    assert text.startswith(f"{tmp_path / 'none'} holds no images: looked in all its folders for .png")
    assert text.endswith("give a folder, zip or file of images as data.source")
    assert not (tmp_path / "run").exists()


def test_no_such_folder(train, tmp_path):
    assert '/nowhere; wanted "digits", a folder or .zip of images' in train("--data.source", tmp_path / "nowhere")


def test_one_image(train, images, tmp_path):
    for file in sorted(images.iterdir())[1:]:
        file.unlink()
    text = train("--data.source", images)
    assert "has 1 training image(s) (0 held out), and train.batch_size wants 8 different ones a step; give more" in text
    assert "or --train.batch_size 1" in text
    assert not (tmp_path / "run").exists()


def test_fewer_images_than_a_batch(train, images):
    text = train("--data.source", images, "--data.num_held_out", 5)
    assert "has 7 training image(s) (5 held out), and train.batch_size wants 8" in text
    assert "--train.batch_size 7" in text


def test_more_held_out_than_there_are(train, images):
    text = train("--data.source", images, "--data.num_held_out", 12)
    assert "holds 12 images, each counted once, wanted 12 held out and at least 1 for training; lower" in text


def test_images_of_several_sizes(train, images):
    Image.new("L", (20, 9)).save(images / "other.png")
    assert "fit them to one with --data.image_size, such as 8" in train("--data.source", images)


def test_no_space_for_the_images(train, images):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    text = train("--data.source", images, before=limit)
    assert "has no room (File too large); what was saved before is whole: free some, or put --output_dir and" in text


def test_no_space_for_a_checkpoint(train, images, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    text = train("--data.source", images, before=limit)
    assert "step-00000002 could not be written (" in text
    assert "the one before it is whole: free some space or put --output_dir on a larger disk, and start again" in text
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))


def test_no_permission(train, images):
    """Where not even root may make a folder."""
    text = train("--data.source", images, output_dir="/sys/kernel/run")
    assert text.startswith("/sys/kernel/run may not be read or written by this user (")
    assert "change its permissions, or choose another --output_dir" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--train.batchsize", "8"], "unknown setting train.batchsize: did you mean train.batch_size?"),
        (["--train.batch_size", "eight"], "train.batch_size is 'eight' (str); wanted int"),
        (["--train.learning_rate", "-1"], "train.learning_rate is -1.0; it must not be negative"),
        (["--data.background", "[300, 0, 0]"], "data.background is (300, 0, 0); wanted red, green and blue"),
        (["--data.streaming", "true"], "set --data.image_size and --data.channels"),
        (["--data.held_out_split", "test"], "say how many images to hold out, as in --data.num_held_out 512"),
        (["train.batch_size", "8"], "got 'train.batch_size'; wanted --config FILE, --dry_run or --section.field VALUE"),
    ],
)
def test_wrong_setting(train, words, expected):
    assert expected in train(*words)


def test_wrong_config(train, tmp_path):
    (tmp_path / "broken.yaml").write_text("train: [")
    assert "broken.yaml is no valid YAML" in train(config=tmp_path / "broken.yaml")
    assert "no config 'nothing': give the path of a YAML file, or one of the packaged names: " in train(
        config="nothing"
    )


def test_missing_extra(train, images):
    options = [
        "--model.attention_levels",
        "[1]",
        "--model.attention_head_dim",
        "8",
        "--model.attention_backend",
        "xformers",
    ]
    assert "xformers" in train("--data.source", images, *options)


def test_fp16_without_a_gpu(train, images):
    text = train("--data.source", images, "--train.mixed_precision", "fp16")
    assert text == "mixed precision fp16 needs a GPU and there is none; use --train.mixed_precision auto"


def test_compile_without_a_compiler_is_said_and_training_goes_on(images, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "empty.yaml").write_text("{}")
    done = subprocess.run(
        [
            sys.executable, "-m", "fastddpm", "train", "--config", str(tmp_path / "empty.yaml"), *TINY,
            "--train.compile", "true", "--data.source", str(images), "--data.cache_dir", str(tmp_path / "cache"),
            "--output_dir", str(tmp_path / "run"),
        ],
        capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "PATH": str(tmp_path / "bin"), "CXX": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "train.compile needs a C++ compiler and there is none: training goes on without it" in done.stdout
