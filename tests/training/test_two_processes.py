"""Two gloo processes and one compute the same run."""

import pytest
import torch

from tests.training.runs import final_tensors, metrics, start


@pytest.mark.slow
@pytest.mark.parametrize("norm", [pytest.param("group", marks=pytest.mark.slow), "batch"])
def test_two_processes_give_the_parameters_of_one(tmp_path, image_folder, norm):
    settings = {
        "train.micro_batch_size": "2", "model.norm_type": norm, "model.norm_num_groups": "2",
        "train.log_every": "20", "train.checkpoint_every": "20",
    }  # fmt: skip
    for processes in (1, 2):
        done = start(
            tmp_path / str(processes), image_folder, processes=processes,
            **{**settings, "train.num_processes": str(processes)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    one, two = (final_tensors(tmp_path / str(processes)) for processes in (1, 2))
    compared = [name for name in one if name.startswith("model/") and not is_free(name, norm)]
    assert len(compared) > 30
    for name in compared:
        assert (one[name] - two[name]).abs().max() <= 1e-6, name
    for name in one:  # the averaged statistics follow those that are trained
        if name.startswith("ema/") and "running_var" in name:
            assert (two[name] != 1).all(), name
            assert torch.allclose(one[name], two[name], rtol=0.5), name
    first, second = (metrics(tmp_path / str(processes)) for processes in (1, 2))
    assert first[0]["loss"] == pytest.approx(second[0]["loss"], rel=1e-5)
    assert first[0]["loss_by_quartile"] == pytest.approx(second[0]["loss_by_quartile"], rel=1e-5)
    assert torch.isfinite(torch.tensor(first[1]["held_out_loss"]))


def is_free(name: str, norm: str) -> bool:
    """With BatchNorm: the statistics, which each rank takes of its own micro-batches, and the biases in front of a
    norm, which the norm takes out again: their gradient is zero but for rounding, and Adam scales rounding up."""
    statistics = "running" in name or "num_batches" in name
    return norm == "batch" and (statistics or name.endswith((".conv1.bias", ".conv2.bias")))
