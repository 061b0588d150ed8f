"""20 steps are 13 steps, kill -9, and the rest from the checkpoint at 10: bit for bit."""

import signal

import pytest
import torch

from fastddpm import cli, files
from tests.training.runs import final_tensors, metrics, start


@pytest.fixture
def straight(tmp_path, image_folder):
    done = start(tmp_path / "straight", image_folder)
    assert done.returncode == 0, done.stderr
    return tmp_path / "straight"


def assert_same(folder, other):
    ours, theirs = final_tensors(folder), final_tensors(other)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 100
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert metrics(folder) == metrics(other)


@pytest.mark.parametrize(
    "settings",
    [
        {"train.micro_batch_size": "2"},
        pytest.param({"train.mixed_precision": "bf16"}, marks=pytest.mark.slow),
        pytest.param(
            {
                "model.class_conditional": "true",
                "train.label_dropout": "0.3",
                "model.block_type": "residual",
                "model.norm_type": "group",
                "model.norm_num_groups": "2",
                "model.attention_levels": "[1]",
                "model.attention_head_dim": "4",
                "train.timestep_focus": "[0.4, 0.2, 0.8]",
            },
            marks=pytest.mark.slow,
        ),
    ],
    ids=["accumulation", "bf16", "labels, residual, attention"],
)
def test_f5_killed_run_goes_on_bit_for_bit(tmp_path, image_folder, settings):
    whole = start(tmp_path / "straight", image_folder, **settings)
    assert whole.returncode == 0, whole.stderr
    killed = start(tmp_path / "killed", image_folder, kill_at=13, **settings)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model_index.json").exists()
    cli.main(["sample", str(tmp_path / "killed"), "--num_images", "2", "--out", str(tmp_path / "drawn")])
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2, "a run can be sampled before it has ended"
    again = start(tmp_path / "killed", image_folder, **settings)
    assert again.returncode == 0, again.stderr
    assert "going on from step 10" in again.stdout
    assert_same(tmp_path / "killed", tmp_path / "straight")


@pytest.mark.slow
def test_f17_other_settings_are_refused_and_harmless_ones_said(tmp_path, image_folder, straight):
    refused = start(straight, image_folder, **{"train.learning_rate": "0.5"})
    assert refused.returncode != 0
    assert "started with other settings: train.learning_rate was 0.001, now 0.5" in refused.stderr
    longer = start(straight, image_folder, **{"train.num_images_seen": "176"})
    assert longer.returncode == 0, longer.stderr
    assert "train.num_images_seen was 160, now 176" in longer.stdout
    assert metrics(straight)[-1]["step"] == 22


@pytest.mark.slow
def test_f17_other_images_are_refused(tmp_path, image_folder, straight):
    (image_folder / "dark" / "00.png").unlink()
    done = start(straight, image_folder)
    assert done.returncode != 0
    assert "the training images of the run" in done.stderr


def test_resume_never_refuses_a_folder_with_a_run(tmp_path, image_folder, straight):
    done = start(straight, image_folder, **{"train.resume": "never"})
    assert done.returncode != 0
    assert "holds a run at step 20" in done.stderr


@pytest.mark.slow
def test_weights_that_are_no_numbers_are_not_saved_over_good_ones(tmp_path, image_folder):
    settings = {"train.learning_rate": "1e38", "train.lr_warmup_steps": "0", "train.max_grad_norm": "null"}
    done = start(tmp_path / "run", image_folder, **settings)
    assert done.returncode != 0
    assert "the weights are not finite at step 10, and were not saved; start in another --out" in done.stderr
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert metrics(tmp_path / "run")[-1]["loss"] is None


def test_f18_a_folder_in_use_is_refused(tmp_path, image_folder):
    with files.locked(tmp_path / "run"):
        done = start(tmp_path / "run", image_folder)
    assert done.returncode != 0
    assert "is in use by a running job" in done.stderr
