"""Every verb that computes works on a card."""

import pytest
from accelerate.state import AcceleratorState

from fastddpm.cli import main
from tests.gpu.card import inserted, needs_card
from tests.gpu.tiny import CONFIGS, images, settings_of

pytestmark = [needs_card, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of quickstart.yaml, trained to its end on the card."""
    folder = tmp_path_factory.mktemp("run")
    given = settings_of("quickstart", folder)
    on_card("train", "--config", str(CONFIGS / "quickstart.yaml"), "--out", str(folder / "run"),
            *(word for key, value in given.items() if key != "output_dir" for word in (f"--{key}", value)))  # fmt: skip
    return folder / "run", given["data.source"]


def on_card(*words: str):
    with inserted() as card:
        main(list(words))
    AcceleratorState._reset_state(reset_partial_state=True)
    return card


def test_a_run_trains_to_its_end(run):
    assert {"report.html", "samples.png", "model_index.json"} <= {path.name for path in run[0].iterdir()}


def test_sample_vary_and_cutmix(run, tmp_path):
    for verb, given in (("sample", ["--num_images", "4"]), ("vary", [f"{run[1]}#0:2"]), ("cutmix", [f"{run[1]}#0:2"])):
        on_card(verb, str(run[0]), *given, "--out", str(tmp_path / f"{verb}.png"), "--num_inference_steps", "2")
        assert (tmp_path / f"{verb}.png").exists()


def test_detect(run, tmp_path):
    on_card("detect", str(run[0]), f"{run[1]}#0:4", "--out", str(tmp_path / "found"))
    assert (tmp_path / "found" / "report.html").exists()


def test_dcgan(tmp_path):
    on_card("dcgan", "--data.source", images(tmp_path, (16, 16)), "--data.cache_dir", str(tmp_path / "cache"),
            "--data.num_images", "40", "--data.num_held_out", "4", "--out", str(tmp_path / "gan"), "--num_samples", "4",
            "--train.batch_size", "8", "--train.num_images_seen", "16", "--train.width", "4")  # fmt: skip
    assert (tmp_path / "gan" / "samples.png").exists()
