"""Learning rates, weight decay and clipping, seen in what a step does; also in micro-batches and on two processes."""

import math

import pytest
import torch

import fastddpm
from fastddpm.process import borrowed_process, counted
from fastddpm.training.loop import train_step
from fastddpm.training.metrics import read_metrics
from fastddpm.training.run import open_run
from tests.training.runs import final_tensors, metrics, start

TINY = {
    "model.block_out_channels": [4, 8], "model.time_embedding_dim": 8, "model.norm_type": "group",
    "model.norm_num_groups": 2, "scheduler.num_train_timesteps": 20, "scheduler.beta_end": 0.5, "train.batch_size": 8,
    "train.num_images_seen": 80, "train.mixed_precision": "no", "train.num_threads": 1, "train.log_every": 1,
    "sample.num_images": 2, "sample.num_inference_steps": 2,
}  # fmt: skip
PEAK, WARM_UP, STEPS = 1e-3, 4, 10
SCHEDULES = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "cosine_with_restarts": lambda done: 0.5 * (1 + math.cos(math.pi * (3 * done % 1))) if done < 1 else 0.0,
    "polynomial": lambda done: (1e-7 + (PEAK - 1e-7) * (1 - done)) / PEAK,
}


def rate(schedule, step):
    """Of optimizer step 0, 1, ...: up to the peak over the warm-up, then the schedule over what is left."""
    if step < WARM_UP:
        return PEAK * step / WARM_UP
    return PEAK * SCHEDULES[schedule](min(1.0, (step - WARM_UP) / (STEPS - WARM_UP)))


@pytest.fixture
def config(image_folder, tmp_path):
    def load(**settings):
        named = {"output_dir": str(tmp_path / "run"), "data.cache_dir": str(tmp_path / "cache")}
        return fastddpm.load_config(None, {**TINY, **named, "data.source": str(image_folder), **settings})

    return load


@pytest.mark.parametrize("micro", [pytest.param(8, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_each_step_has_the_rate_of_the_formula(config, schedule, micro):
    """Counted in optimizer steps: four micro-batches a step change nothing, and a row holds the next step's rate."""
    settings = {"train.lr_schedule": schedule, "train.lr_warmup_steps": WARM_UP, "train.micro_batch_size": micro}
    used, logged = [], []
    with borrowed_process(), open_run(config(**settings)) as run:
        for _ in range(STEPS):
            used.append(run.optimizer.param_groups[0]["lr"])
            train_step(run)
            run.state.step += 1
            logged.append(run.lr_schedule.get_last_lr()[0])
    assert used == pytest.approx([rate(schedule, step) for step in range(STEPS)], rel=1e-9, abs=1e-15)
    assert logged[:-1] == used[1:]


def test_rates_are_logged_row_by_row_and_go_on_where_a_run_stopped(config):
    settings = {"train.lr_schedule": "linear", "train.lr_warmup_steps": WARM_UP}
    with borrowed_process(), open_run(config(**settings)) as run:
        for _ in range(6):
            train_step(run)
            run.state.step += 1
        run.save()
    folder = fastddpm.train(config(**settings))
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "learning_rate" in row]
    assert [row["step"] for row in rows] == [7, 8, 9, 10]
    expected = [rate("linear", row["step"]) for row in rows]
    assert [row["learning_rate"] for row in rows] == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_a_warm_up_as_long_as_the_run_is_said(config, capsys):
    for warm_up, said in ((STEPS, True), (STEPS - 1, False)):
        with borrowed_process(), open_run(config(**{"train.lr_warmup_steps": warm_up})):
            assert ("the run has 10 steps: the learning rate never reaches its peak" in capsys.readouterr().out) == said


def test_a_solver_that_multiplies_small_errors_is_said_before_training(config, capsys):
    risky = {"scheduler.beta_schedule": "squaredcos_cap_v2", "sample.scheduler": "ddim"}
    for settings, times in ((risky, 1), ({**risky, "scheduler.clip_sample": True}, 0)):
        with borrowed_process(), open_run(config(**settings)):
            assert capsys.readouterr().out.count("sample.scheduler ddim over beta_schedule squaredcos_cap_v2") == times


def stepped(config, **settings):
    """Parameters before and after one step, as one vector each, and the gradient's norm."""
    with borrowed_process(), open_run(config(**settings)) as run:
        parameters = list(run.state.unet.parameters())
        before = vector(parameters)
        norm = float(train_step(run))
        return before, vector(parameters), norm


def vector(parameters):
    return torch.cat([parameter.detach().flatten().double() for parameter in parameters])


def test_weight_decay_pulls_parameters_towards_zero(config, tmp_path):
    """AdamW: beside Adam's step, each parameter loses learning_rate * weight_decay of itself."""
    learning_rate, decay = 0.1, 0.5
    before, plain, _ = stepped(config, **{"train.learning_rate": learning_rate})
    other = {"train.learning_rate": learning_rate, "train.weight_decay": decay, "output_dir": str(tmp_path / "other")}
    _, decayed, _ = stepped(config, **other)
    assert torch.allclose(plain - decayed, learning_rate * decay * before, atol=1e-6)
    assert (plain - decayed).abs().max() > 1e-3


@pytest.mark.parametrize("micro", [8, 2])
def test_clipping_shortens_the_update_and_leaves_its_direction(config, tmp_path, micro):
    """An epsilon far above the gradients makes Adam's step proportional to them: learning_rate * gradient / epsilon."""
    plain = {"train.learning_rate": 1e3, "train.adam_epsilon": 1e3, "train.micro_batch_size": micro}
    before, free, norm = stepped(config, **plain, **{"train.max_grad_norm": None})
    limit = norm / 4
    clipped = {"train.max_grad_norm": limit, "output_dir": str(tmp_path / "clipped")}
    _, held, reported = stepped(config, **plain, **clipped)
    assert reported == pytest.approx(norm), "the norm is that before clipping"
    assert torch.allclose((held - before) * 4, free - before, rtol=0.02, atol=1e-3 * norm)
    assert float((held - before).norm()) == pytest.approx(limit, rel=0.02)
    above = {"train.max_grad_norm": 2 * norm, "output_dir": str(tmp_path / "above")}
    assert torch.equal(stepped(config, **plain, **above)[1], free), "a norm below the limit is left alone"


@pytest.mark.slow
def test_two_processes_have_the_rates_decay_clipping_crops_and_flips_of_one(tmp_path, image_folder):
    settings = {
        "train.micro_batch_size": "2", "model.norm_type": "group", "model.norm_num_groups": "2",
        "train.log_every": "1", "train.checkpoint_every": "20", "train.weight_decay": "0.1",
        "train.max_grad_norm": "0.2", "train.random_crop": "6", "train.vertical_flip": "true",
    }  # fmt: skip
    for processes in (1, 2):
        done = start(tmp_path / str(processes), image_folder, processes=processes, **settings)
        assert done.returncode == 0, done.stderr
        assert f"cpu, {counted(processes, 'process')}" in done.stdout
    one, two = (metrics(tmp_path / str(processes)) for processes in (1, 2))
    assert [row.get("learning_rate") for row in one] == [row.get("learning_rate") for row in two]
    norms = [[row["grad_norm"] for row in rows if "grad_norm" in row] for rows in (one, two)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert min(norms[0]) > 0.2, "every step is clipped"
    first, second = (final_tensors(tmp_path / str(processes)) for processes in (1, 2))
    for name, tensor in first.items():
        if name.startswith("model/"):
            assert (tensor - second[name]).abs().max() <= 1e-6, name
