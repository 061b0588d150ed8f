"""Several decays at once: each averaged as if it were alone, all of them saved, drawn and resumed."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import fastddpm
from fastddpm import FastDDPMPipeline, cli
from fastddpm.training.metrics import read_metrics

SETTINGS = {
    "model.block_out_channels": [4, 8], "model.time_embedding_dim": 8, "scheduler.num_train_timesteps": 20,
    "scheduler.beta_end": 0.5, "train.batch_size": 8, "train.num_images_seen": 160, "train.checkpoint_every": 10,
    "train.evaluate_every": 10, "train.mixed_precision": "no", "train.num_threads": 1, "data.num_held_out": 4,
    "sample.num_images": 4, "sample.num_inference_steps": 3,
}  # fmt: skip
SEVERAL = [0.5, 0.9, 0.0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trains on twelve images into the folder of a name."""
    root = tmp_path_factory.mktemp("averages")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(root / "images" / f"{i}.png")

    def run(name, decays, **settings):
        places = {"data.source": root / "images", "data.cache_dir": root / "cache", "output_dir": root / name}
        return fastddpm.train(fastddpm.load_config(None, {**SETTINGS, **places, "train.ema_decay": decays, **settings}))

    return run


@pytest.fixture(scope="module")
def several(run):
    return run("several", SEVERAL)


def averaged(folder, name="ema"):
    return load_file(folder / "checkpoints" / "step-00000020" / f"{name}.safetensors")


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def held_out_rows(folder):
    return [row for row in read_metrics(folder / "metrics.jsonl") if "held_out_loss" in row]


def test_each_decay_is_what_a_run_of_its_own_averages(run, several):
    alone = run("alone", 0.9)
    assert_equal(averaged(several, "ema-0.9"), averaged(alone))
    assert [row["held_out_loss_of_others"]["ema-0.9"] for row in held_out_rows(several)] == [
        row["held_out_loss"] for row in held_out_rows(alone)
    ]
    assert_equal(averaged(several, "ema-0"), averaged(several, "model"))
    assert not torch.equal(averaged(several)["conv_out.weight"], averaged(several, "ema-0.9")["conv_out.weight"])


def test_each_decay_is_saved_loads_and_is_drawn(several, tmp_path):
    for folder, name in ((several, "ema"), (several / "ema-0.9", "ema-0.9"), (several / "ema-0", "ema-0")):
        assert_equal(FastDDPMPipeline.from_pretrained(folder).unet.state_dict(), averaged(several, name))
    drawn = {name: pixels(several / f"{name}.png") for name in ("samples", "samples-ema-0.9", "samples-ema-0")}
    assert len({picture.tobytes() for picture in drawn.values()}) == 3
    words = ["--num_images", "4", "--num_inference_steps", "3", "--micro_batch_size", "4"]
    cli.main(["sample", str(several / "ema-0.9"), "--out", str(tmp_path / "again.png"), *words])
    assert np.abs(pixels(tmp_path / "again.png").astype(int) - drawn["samples-ema-0.9"]).max() <= 1, "the same seeds"


def pixels(path):
    return np.asarray(Image.open(path))


def test_a_run_goes_on_with_all_of_them(run, several):
    run("halves", SEVERAL, **{"train.num_images_seen": 80})
    halves = run("halves", SEVERAL)
    for name in ("model", "optimizer", "ema", "ema-0.9", "ema-0"):
        assert_equal(averaged(halves, name), averaged(several, name))
    assert held_out_rows(halves)[-1] == held_out_rows(several)[-1]


def test_another_list_of_decays_is_refused(run, several):
    with pytest.raises(ValueError, match=r"train.ema_decay was \(0.5, 0.9, 0.0\), now 0.5"):
        run("several", 0.5)
