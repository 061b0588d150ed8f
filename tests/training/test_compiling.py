"""train.compile auto."""

import re

import pytest
import torch

import fastddpm
from fastddpm.config import load_run
from fastddpm.process import borrowed_process, can_compile
from fastddpm.training import checkpoint, compiling
from fastddpm.training.run import open_run
from tests.training.runs import start_each

SETTINGS = {
    "model.block_out_channels": [4, 8], "model.time_embedding_dim": 8, "scheduler.num_train_timesteps": 20,
    "scheduler.beta_end": 0.5, "train.batch_size": 8, "train.num_images_seen": 24, "train.mixed_precision": "no",
    "train.num_threads": 1, "sample.num_images": 2, "sample.num_inference_steps": 2, "train.evaluate_every": 0,
}  # fmt: skip


@pytest.fixture
def config(image_folder, tmp_path):
    def load(**settings):
        named = {"output_dir": str(tmp_path / "run"), "data.cache_dir": str(tmp_path / "cache")}
        return fastddpm.load_config(None, {**SETTINGS, **named, "data.source": str(image_folder), **settings})

    return load


@pytest.fixture
def tries(monkeypatch):
    """Every run is long enough; a backend that compiles nothing stands in for the compiler, so that this is quick."""
    monkeypatch.setattr(compiling, "WORTH_TRYING", 0.0)

    def use(backend, most_of_eager):
        monkeypatch.setattr(torch.nn.Module, "compile", lambda unet: torch_compile(unet, backend=backend))
        monkeypatch.setattr(compiling, "MOST_OF_EAGER", most_of_eager)

    torch_compile = torch.nn.Module.compile
    return use


def opened(config):
    with borrowed_process(), open_run(config) as run:
        return run


def test_a_short_run_is_not_compiled_and_says_nothing(config, capsys):
    run = opened(config())
    assert run.config.train.compile is False
    assert run.state.unet._compiled_call_impl is None
    assert "compile" not in capsys.readouterr().out


@pytest.mark.parametrize(("most", "is_kept"), [(1e9, True), (0.0, False)])
def test_the_faster_is_kept_and_leaves_no_trace(config, tries, capsys, most, is_kept):
    plain = opened(config(**{"train.compile": False})).state.unet.state_dict()
    tries("eager", most)
    random_state = torch.get_rng_state()
    run = opened(config(output_dir=str(config().output_dir) + "-auto"))
    assert run.config.train.compile is is_kept
    assert (run.state.unet._compiled_call_impl is not None) is is_kept
    assert all(torch.equal(tensor, plain[name]) for name, tensor in run.state.unet.state_dict().items())
    assert all(parameter.grad is None for parameter in run.state.unet.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert f"train.compile auto: {'yes' if is_kept else 'no'}, a micro-batch takes" in capsys.readouterr().out


def test_the_choice_stands_in_the_manifest_and_is_kept(config, tries, capsys):
    tries("eager", 1e9)
    folder = fastddpm.train(config())
    assert checkpoint.newest(folder / "checkpoints")[1]["config"]["train"]["compile"] is True
    assert load_run(folder).train.compile is True
    tries("eager", 0.0)
    capsys.readouterr()
    assert opened(config(**{"train.num_images_seen": 32})).config.train.compile is True
    assert "trying" not in capsys.readouterr().out


def failing(graph, inputs):
    raise RuntimeError("no such instruction")


def of_other_numbers(graph, inputs):
    return lambda *given: [
        each * 1.5 if each is not None and each.is_floating_point() else each for each in graph(*given)
    ]


@pytest.mark.parametrize(
    ("backend", "why"),
    [(failing, "BackendCompilerFailed: .*no such instruction"), (of_other_numbers, "its numbers are not those of the")],
)
def test_a_compiler_that_fails_or_is_wrong_is_left(config, tries, capsys, backend, why):
    tries(backend, 1e9)
    run = opened(config())
    assert run.config.train.compile is False
    assert run.state.unet._compiled_call_impl is None
    out = capsys.readouterr().out
    assert re.search(f"train.compile auto: no, {why}", out), out


@pytest.mark.parametrize("determinism", ["exact", "elastic"])
def test_promised_bits_are_those_of_the_plain_network(config, tries, determinism):
    tries("eager", 1e9)
    run = opened(config(**{"train.determinism": determinism, "train.micro_batch_size": 4}))
    assert run.config.train.compile is False


def test_a_dry_run_says_what_will_be_tried(config):
    said = [compiling.plan(config(**changed), torch.device("cpu")) for changed in ({}, {"train.determinism": "exact"})]
    assert said[0] == "train.compile auto: tried if training takes over 10 minutes without it, and kept if it is faster"
    assert said[1] == "train.compile auto: no, train.determinism exact keeps the bits of the plain network"


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(cpu=True), reason="no C++ compiler")
def test_two_ranks_decide_alike_by_the_real_compiler(image_folder, tmp_path):
    before = "from fastddpm.training import compiling as c; c.WORTH_TRYING, c.ROUNDS, c.MOST_OF_EAGER = 0.0, 1, 1e9\n"
    done = start_each(tmp_path / "run", image_folder, processes=2, before=before)
    assert [each.returncode for each in done] == [0, 0], done[0].stderr[-2000:] + done[1].stderr[-2000:]
    assert done[0].stdout.count("train.compile auto: yes, a micro-batch takes") == 1
    assert load_run(tmp_path / "run").train.compile is True
