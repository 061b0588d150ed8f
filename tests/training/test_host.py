"""The training path without waste: nothing is read from the device between two logs, nothing is compiled twice."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastddpm.training import loop
from fastddpm.training.guard import Guard
from tests.training.runs import train_here

READS = ("aten::_local_scalar_dense", "aten::is_nonzero")


class Reads(TorchDispatchMode):
    """Counts the operators that make the host wait for a tensor's value."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        self.seen.update(read for read in READS if name.startswith(read))
        return function(*args, **(kwargs or {}))


def reads_by_step(monkeypatch, folder, images, **settings):
    """What is read in each of twelve steps, from its first operation to the next one's; rows are due every fourth."""
    found, original = [], loop.train_step

    def train_step(run):
        found.append(reads.seen)
        reads.seen = Counter()
        return original(run)

    monkeypatch.setattr(loop, "train_step", train_step)
    reads = Reads()
    given = {"train.num_images_seen": "96", "train.log_every": "4", "train.checkpoint_every": "0", **settings}
    with reads:
        train_here(folder, images, **given)
    assert len(found) == 12
    return [*found[1:], None]  # the last one is followed by what ends a run


SETTINGS = [
    {},
    {"train.micro_batch_size": "4", "train.ema_decay": "[0.9, 0.99]", "train.max_grad_norm": "null"},
    {"train.random_crop": "6", "train.vertical_flip": "true", "train.min_snr_gamma": "5"},
    {"train.timestep_focus": "[0.4, 0.2, 0.8]", "scheduler.prediction_type": "v_prediction"},
    {"model.norm_type": "group", "model.norm_num_groups": "2", "train.mixed_precision": "bf16"},
    {"train.determinism": "elastic", "train.micro_batch_size": "4"},
]


@pytest.mark.parametrize(
    "settings",
    [pytest.param(each, marks=() if each in (SETTINGS[0], SETTINGS[3]) else pytest.mark.slow) for each in SETTINGS],
    ids=lambda settings: ", ".join(settings) or "as it is",
)
def test_nothing_is_read_between_two_logs(monkeypatch, tmp_path, image_folder, settings):
    found = reads_by_step(monkeypatch, tmp_path / "run", image_folder, **settings)
    between = [reads for step, reads in enumerate(found[:-1], 1) if step % 4]
    assert all(reads == {} for reads in between), between
    assert all(found[step - 1] for step in (4, 8)), "a log does read"


@pytest.mark.parametrize("plant", [lambda loss: loss.item(), bool], ids=["item", "bool"])
def test_a_planted_read_is_seen(monkeypatch, tmp_path, image_folder, plant):
    original = Guard.look

    def look(guard, step, loss, grad_norm):
        plant(grad_norm)
        return original(guard, step, loss, grad_norm)

    monkeypatch.setattr(Guard, "look", look)
    assert all(reads_by_step(monkeypatch, tmp_path / "run", image_folder)[:-1])


@pytest.mark.slow
def test_nothing_is_compiled_twice_in_a_run_with_previews_that_goes_on(monkeypatch, tmp_path, image_folder):
    """45 images in batches of 8: batches cross epochs, and the run ends with a whole one. Both processes, were they
    two, would compile one graph."""
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    settings = {
        "train.compile": "true", "train.num_images_seen": "45", "watch.preview_every_images": "16",
        "train.checkpoint_every": "2", "train.evaluate_every": "2",
    }  # fmt: skip
    counters = torch._dynamo.utils.counters
    for fail_at in (3, None):
        torch._dynamo.reset()
        counters.clear()
        try:
            train_here(tmp_path / "run", image_folder, fail_at=fail_at, **settings)
        except RuntimeError as error:
            assert "in the middle" in str(error)  # noqa: PT017  a recompilation would be another error
        assert counters["stats"]["unique_graphs"] == 1
        assert not counters["graph_break"]
