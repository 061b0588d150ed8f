"""F13 and F14: a step without a finite gradient is left out on all ranks and named with its images; too many in a row
end the run; a spike is named, or left out too."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from fastddpm.config import TrainConfig
from fastddpm.training import loop
from fastddpm.training.guard import REMEMBERED, WARM_UP, Guard, keep_if
from fastddpm.training.ledger import rows
from tests.training.runs import final_tensors, metrics, start, train_here
from tests.training.test_resume import assert_same

HARM = """
import os
import torch
from fastddpm.training import loss
inner = loss.Objective.training
def training(self, unet, images, labels, positions):
    weighted, plain, timesteps = inner(self, unet, images, labels, positions)
    step = int(positions[0]) // 8 + 1
    if {where} and os.environ.get("RANK", "{rank}") == "{rank}":
        {what}
    return weighted, plain, timesteps
loss.Objective.training = training
"""
NAN_LOSS = "weighted, plain = weighted * float('nan'), plain * float('nan')"
NAN_GRADIENT = "weighted.register_hook(lambda gradient: gradient * float('nan'))"
SPIKE = "weighted = weighted * 1e4"


def harm(what, where="step == 7", rank=0):
    return HARM.format(what=what, where=where, rank=rank)


def incidents(folder):
    return [row for row in metrics(folder) if "incident" in row]


def is_finite(folder, step=20):
    return all(torch.isfinite(tensor).all() for tensor in final_tensors(folder, step).values())


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (NAN_LOSS, "the loss is not finite, left out"),
        pytest.param(NAN_GRADIENT, "a gradient is not finite, left out", marks=pytest.mark.slow),
    ],
    ids=["loss", "gradient"],
)
@pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_f13_a_step_that_is_no_number_is_left_out_and_named(tmp_path, image_folder, what, reason, world):
    folder, rank = tmp_path / "run", world - 1
    settings = {"train.micro_batch_size": "4", "train.ema_decay": "0.9"}
    done = start(folder, image_folder, processes=world, before=harm(what, rank=rank), **settings)
    assert done.returncode == 0, done.stderr
    assert is_finite(folder)
    (row,) = incidents(folder)
    assert (row["incident"], row["incident_step"], row["step"]) == (reason, 7, 8)
    from fastddpm.config import load_config
    from fastddpm.data import load_splits

    config = load_config(folder / "config.yaml")
    (of_ledger,) = rows(config, load_splits(config.data, seed=0, show_progress=False).train, range(6, 7))
    assert row["incident_images"] == of_ledger["places"]
    assert f"warning: step 7: {reason}" in done.stderr + done.stdout


def test_a_step_left_out_changes_nothing_not_even_statistics(tmp_path, image_folder, monkeypatch):
    from fastddpm.training.loss import Objective

    seen, original, inner = [], Objective.training, loop.train_step

    def training(self, unet, images, labels, positions):
        weighted, plain, timesteps = original(self, unet, images * 1, labels, positions)
        return (weighted * math.nan if int(positions[0]) // 8 == 6 else weighted), plain, timesteps

    def train_step(run):
        def everything():
            moments = run.state.optimizer.state_dict()["state"]
            named = {f"{i}.{name}": tensor for i, entry in moments.items() for name, tensor in entry.items()}
            kept = named | run.state.unet.state_dict()
            return {name: tensor.clone() for name, tensor in kept.items() if "num_batches" not in name}

        before = everything()
        found = inner(run)
        now = everything()
        seen.append(all(torch.equal(now[name], old) for name, old in before.items()) and now.keys() == before.keys())
        return found

    monkeypatch.setattr(Objective, "training", training)
    monkeypatch.setattr(loop, "train_step", train_step)
    train_here(tmp_path / "run", image_folder)
    assert [step for step, same in enumerate(seen, 1) if same] == [7]


@pytest.mark.slow
def test_f14_a_run_that_was_killed_leaves_the_same_steps_out(tmp_path, image_folder):
    before = harm(NAN_LOSS, "step in (9, 12)")  # the checkpoint at 10 lies between step 9 and the row that names it
    whole = start(tmp_path / "whole", image_folder, before=before)
    assert whole.returncode == 0, whole.stderr
    start(tmp_path / "killed", image_folder, before=before, kill_at=13)
    again = start(tmp_path / "killed", image_folder, before=before)
    assert again.returncode == 0, again.stderr
    assert [row["incident_step"] for row in incidents(tmp_path / "killed")] == [9, 12]
    assert_same(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_f13_too_many_in_a_row_end_the_run_with_the_step_and_the_cause(tmp_path, image_folder):
    done = start(
        tmp_path / "run", image_folder, before=harm(NAN_LOSS, "step > 5"), **{"train.max_skipped_in_a_row": "5"}
    )
    assert done.returncode != 0
    said = done.stderr.strip().splitlines()[-1]
    assert "rank 0, step 12: 7 steps in a row had no finite gradient (the loss is not finite)" in said
    assert [row["incident_step"] for row in incidents(tmp_path / "run")] == list(range(6, 13))


@pytest.mark.parametrize("policy", ["log", "skip", "ignore"])
def test_f14_a_spike_is_named_or_left_out_as_the_config_says(tmp_path, image_folder, monkeypatch, policy):
    from fastddpm.training.loss import Objective

    original = Objective.training

    def training(self, unet, images, labels, positions):
        weighted, plain, timesteps = original(self, unet, images, labels, positions)
        return (weighted * 1e4 if int(positions[0]) // 8 == 29 else weighted), plain, timesteps

    monkeypatch.setattr(Objective, "training", training)
    settings = {"train.num_images_seen": "320", "train.on_spike": policy, "train.max_grad_norm": "null"}
    folder = train_here(tmp_path / "run", image_folder, **settings)
    wanted = {
        "log": ["a spike of the gradient norm"], "skip": ["a spike of the gradient norm, left out"], "ignore": [],
    }[policy]  # fmt: skip
    assert [(row["incident"], row["incident_step"]) for row in incidents(folder)] == [(what, 30) for what in wanted]


def guard(**settings):
    return Guard(TrainConfig(**settings), Accelerator(cpu=True))


FINITE = torch.tensor(1.0)


def norms(made, values, first=1):
    return [float(made.look(step, FINITE, torch.tensor(value))) for step, value in enumerate(values, first)]


def test_the_usual_norm_is_learned_before_a_spike_is_believed_and_is_not_moved_by_it():
    made = guard(on_spike="skip", spike_factor=10.0)
    assert norms(made, [1.0] * (WARM_UP - 1) + [50.0]) == [0.0] * WARM_UP  # too early to tell
    made = guard(on_spike="skip", spike_factor=10.0)
    norms(made, [1.0] * WARM_UP)
    before = made.mean.clone()
    assert norms(made, [11.0, 9.0], WARM_UP + 1) == [1.0, 0.0]
    assert made.mean[0] > before[0]  # of the 9 alone
    assert float(made.mean[0]) == pytest.approx(0.02 * math.log(9.0))
    assert int(made.mean[1]) == WARM_UP + 1
    count, (incident,), in_a_row = made.read_and_reset()
    assert (count, incident.step, incident.skipped, in_a_row) == (1, WARM_UP + 1, True, 0)


def test_steps_in_a_row_are_counted_until_one_is_good():
    made = guard()
    norms(made, [1.0, math.nan, math.inf])
    assert made.read_and_reset()[2] == 2
    norms(made, [math.nan], 4)
    assert made.read_and_reset()[2] == 3
    norms(made, [1.0], 5)
    assert made.read_and_reset() == (0, [], 0)


def test_of_very_many_the_newest_are_named_and_all_are_counted():
    made = guard()
    norms(made, [math.nan] * (REMEMBERED + 5))
    count, newest, _ = made.read_and_reset()
    assert count == REMEMBERED + 5
    assert [incident.step for incident in newest] == list(range(6, REMEMBERED + 6))


def test_what_a_checkpoint_keeps_is_exact():
    made, other = guard(), guard()
    norms(made, [0.1, 0.7, math.nan])
    other.take(json.loads(json.dumps(made.row())))
    assert torch.equal(other.mean, made.mean)
    assert int(other.in_a_row) == 1
    assert other.read_and_reset() == made.read_and_reset() != (0, [], 1)


def test_leaving_spikes_out_is_refused_where_the_loss_scaler_decides():
    scaled = SimpleNamespace(scaler=object(), device=torch.device("cpu"), num_processes=1)
    with pytest.raises(ValueError, match="with fp16 the loss scaler decides"):
        Guard(TrainConfig(on_spike="skip"), scaled)
    Guard(TrainConfig(on_spike="log"), scaled)


def test_tensors_are_put_back_only_if_the_step_is_left_out():
    now, before = [torch.tensor([2.0, math.nan])], torch.tensor([1.0, 1.0])
    keep_if(torch.tensor(0.0), now, before)
    assert now[0][0] == 2
    keep_if(torch.tensor(1.0), now, before)
    assert now[0].tolist() == [1.0, 1.0]


def test_what_waits_is_judged_before_it_is_too_much(monkeypatch):
    monkeypatch.setattr("fastddpm.training.guard.MOST_WAITING", 4)
    made = guard()
    assert norms(made, [1.0, math.nan, 1.0, math.inf, 1.0]) == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert int(made.mean[1]) == 2, "of the first four"
    assert [incident.step for incident in made.read_and_reset()[1]] == [2, 4]
