"""Saved tiny pipelines to sample from."""

import pytest

from fastddpm import FastDDPMPipeline, cli
from tests.conftest import tiny_unet


@pytest.fixture
def model(scheduler, tmp_path):
    """The folder of a pipeline of three classes, 8x8x1."""
    FastDDPMPipeline(tiny_unet(num_class_embeds=4), scheduler).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def rgb_model(scheduler, tmp_path):
    """The folder of a pipeline without classes, 8x8x3."""
    FastDDPMPipeline(tiny_unet(in_channels=3, out_channels=3), scheduler).save_pretrained(tmp_path / "rgb")
    return tmp_path / "rgb"


@pytest.fixture
def draw():
    """`fastddpm sample` in this process: ten images in micro-batches of four, four steps."""

    def run(model, out, *more):
        words = ["--num_images", "10", "--micro_batch_size", "4", "--num_inference_steps", "4", "--num_threads", "1"]
        cli.main(["sample", str(model), "--out", str(out), *words, *map(str, more)])
        return out

    return run


@pytest.fixture
def refused(draw, capsys):
    """The one line that such a command ends with."""

    def run(*arguments) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            draw(*arguments)
        assert stop.value.code == 2
        (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("fastddpm: error: "))
        return line.removeprefix("fastddpm: error: ")

    return run
