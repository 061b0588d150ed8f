"""Classes by name wherever they are by number: in Python, on the command line, in saved folders and rows."""

import json
import subprocess
import sys

import numpy as np
import pytest

from fastddpm import CutMixPipeline, FastDDPMPipeline, VariationPipeline, cli
from fastddpm.pipelines.portable import numbered
from tests.conftest import stock_unet

NAMES = ("dark", "light", "0")


@pytest.fixture
def named(labelled_unet, scheduler):
    pipeline = FastDDPMPipeline(labelled_unet, scheduler, label_names=NAMES)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def saved(named, tmp_path):
    named.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def draw(pipeline, labels):
    options = {"seeds": range(len(labels)), "num_inference_steps": 2, "output_type": "np"}
    return pipeline(class_labels=labels, **options).images


def test_names_and_numbers_mean_the_same_and_names_go_first(named):
    assert [named.class_number(label) for label in ("dark", "light", "0", "1", 0)] == [0, 1, 2, 1, 0]
    assert np.array_equal(draw(named, ["dark", "light", "0", "3"]), draw(named, [0, 1, 2, 3]))


@pytest.mark.parametrize("kind", [VariationPipeline, CutMixPipeline])
def test_pipelines_that_start_from_images_take_names(named, kind):
    pipeline = kind(named.unet, named.scheduler, label_names=NAMES)
    pipeline.set_progress_bar_config(disable=True)
    images = [np.zeros((2, 1, 8, 8), np.uint8)] * (2 if kind is CutMixPipeline else 1)
    options = {"start_timestep": 2, "seeds": range(2), "output_type": "np"}
    by_name, by_number = (pipeline(*images, class_labels=labels, **options).images for labels in (["light", 2], [1, 2]))
    assert np.array_equal(by_name, by_number)


def test_an_unknown_class_is_refused_with_those_there_are(named, labelled_unet, scheduler):
    wanted = "class_labels must be 0 to 2, or 3 or 'none' for any class: 0 dark, 1 light, 2 0"
    with pytest.raises(ValueError, match=f"^there is no class 'seven'; {wanted}$"):
        draw(named, [1, "seven"])
    with pytest.raises(ValueError, match=f"^{wanted}$"):
        draw(named, [9])
    with pytest.raises(
        ValueError, match=r"^there is no class 'dark'; class_labels must be 0 to 2, or 3 or 'none' for any class$"
    ):
        draw(FastDDPMPipeline(labelled_unet, scheduler), ["dark"])


def test_of_many_classes_twenty_are_told(scheduler):
    many = FastDDPMPipeline(stock_unet(num_class_embeds=50), scheduler, label_names=[f"c{i}" for i in range(50)])
    with pytest.raises(ValueError, match=r"0 c0, 1 c1, .*, 19 c19 and 30 more$"):
        draw(many, ["c50"])


def test_a_saved_folder_knows_its_names(saved):
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_label_names"] == {"0": "dark", "1": "light", "2": "0"}
    again = VariationPipeline.from_pretrained(saved)
    assert again.label_names == NAMES
    again.save_pretrained(saved / "again")
    assert FastDDPMPipeline.from_pretrained(saved / "again").label_names == NAMES


@pytest.mark.slow
def test_stock_diffusers_loads_it_without_a_word_and_its_own_pipeline_with_names(saved):
    code = f"""
import sys
sys.modules["fastddpm"] = None
from diffusers import DiffusionPipeline
DiffusionPipeline.from_pretrained({str(saved)!r}, trust_remote_code=True)
pipe = DiffusionPipeline.from_pretrained({str(saved)!r}, trust_remote_code=True, custom_pipeline="pipeline")
print(pipe.label_names, pipe.class_number("light"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("('dark', 'light', '0') 1\n"), done.stderr
    assert "will be ignored" not in done.stderr


def test_the_command_line_takes_names_and_rows_carry_both(saved, tmp_path, capsys):
    words = ["--num_images", "2", "--num_inference_steps", "2", "--out", str(tmp_path / "out")]
    cli.main(["sample", str(saved), "--class_label", "light", *words])
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert [(row["label"], row["label_name"]) for row in rows] == [(1, "light")] * 2
    cli.main(["vary", str(saved), str(tmp_path / "out" / "000000.png"), "--start_timesteps", "2", "--class_label", "0",
              "--num_images", "1", "--out", str(tmp_path / "varied.npz")])  # fmt: skip
    (row,) = np.load(tmp_path / "varied.npz")["metadata"].tolist()
    assert (json.loads(row)["label"], json.loads(row)["label_name"]) == (2, "0")
    with pytest.raises(SystemExit):
        cli.main(["sample", str(saved), "--class_label", "lihgt", *words[:-1], str(tmp_path / "other")])
    assert "knows 0 to 2 (0 dark, 1 light, 2 0), or 3 or 'none' for any class" in capsys.readouterr().err


def test_names_that_are_the_numbers_are_not_said_twice():
    assert numbered(("dark", "light")) == "0 dark, 1 light"
    assert numbered([str(number) for number in range(10)]) == "0 to 9"
