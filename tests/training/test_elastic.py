"""F6: train.determinism elastic gives the bits of one process on any number, also when it changes in mid-run."""

import json
import os
import subprocess
import sys

import pytest
import torch

from fastddpm.config import TrainConfig, load_config
from fastddpm.training.gradients import PairwiseSum
from fastddpm.training.split import Split
from tests.training.runs import final_tensors, free_port, start, start_each, train_here

ELASTIC = {"train.determinism": "elastic", "train.micro_batch_size": "2", "train.checkpoint_every": "5"}
NORMS = {"batch": {}, "group": {"model.norm_type": "group", "model.norm_num_groups": "2"}}


def assert_bit_equal(folder, other):
    one, two = final_tensors(folder), final_tensors(other)
    assert one.keys() == two.keys()
    assert len(one) > 100
    different = [name for name in one if not torch.equal(one[name], two[name])]
    assert not different, different


def world_size_of(folder, step):
    return json.loads((folder / "checkpoints" / f"step-{step:08d}" / "manifest.json").read_text())["world_size"]


@pytest.mark.parametrize("norm", ["batch", pytest.param("group", marks=pytest.mark.slow)])
@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_f6_parameters_are_bit_equal_on_1_2_and_4_processes(tmp_path, image_folder, norm, world):
    settings = {**ELASTIC, **NORMS[norm]}
    alone = train_here(tmp_path / "1", image_folder, **settings)
    for done in start_each(tmp_path / "several", image_folder, processes=world, **settings):
        assert done.returncode == 0, done.stderr
    assert world_size_of(tmp_path / "several", 20) == world
    assert_bit_equal(alone, tmp_path / "several")


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{}, {"train.mixed_precision": "bf16"}, {"train.max_grad_norm": "0.1", "train.ema_decay": "[0.9, 0.99]"}],
    ids=["plain", "bf16", "clipped"],
)
def test_f6_the_number_may_change_in_the_middle(tmp_path, image_folder, settings):
    """1 process until it is killed, then 2, then 4, then 1 again."""
    settings = {**ELASTIC, "train.keep_checkpoints": "9", **settings}
    alone, folder = train_here(tmp_path / "alone", image_folder, **settings), tmp_path / "changing"
    for processes, kill_at in ((1, 7), (2, 12), (4, 17)):
        assert start(folder, image_folder, processes=processes, kill_at=kill_at, **settings).returncode != 0
    last = start(folder, image_folder, **settings)
    assert last.returncode == 0, last.stderr
    assert "now on 1 of 1: to the same bits (train.determinism elastic)" in last.stdout
    assert [world_size_of(folder, step) for step in (5, 10, 15, 20)] == [1, 2, 4, 1]
    assert_bit_equal(alone, folder)


@pytest.mark.slow
def test_without_it_the_bits_do_depend_on_the_number(tmp_path, image_folder):
    """Else the tests above would prove nothing."""
    settings = {**ELASTIC, **NORMS["group"], "train.determinism": "exact"}
    alone = train_here(tmp_path / "1", image_folder, **settings)
    assert start(tmp_path / "4", image_folder, processes=4, **settings).returncode == 0
    one, four = final_tensors(alone), final_tensors(tmp_path / "4")
    assert any(not torch.equal(one[name], four[name]) for name in one)


@pytest.mark.slow
def test_it_is_another_sum_than_the_usual_one_and_nearly_the_same(tmp_path, image_folder):
    settings = {**ELASTIC, **NORMS["group"]}
    tree = final_tensors(train_here(tmp_path / "tree", image_folder, **settings))
    usual = final_tensors(train_here(tmp_path / "usual", image_folder, **{**settings, "train.determinism": "exact"}))
    weights = [name for name in tree if name.startswith("model/")]
    assert any(not torch.equal(tree[name], usual[name]) for name in weights)
    assert max((tree[name] - usual[name]).abs().max() for name in weights) < 1e-5


def test_a_running_mean_is_that_of_its_micro_batches(tmp_path, image_folder):
    """One micro-batch: BatchNorm's own rule."""
    one = {"train.micro_batch_size": "8", "train.checkpoint_every": "5"}
    plain = train_here(tmp_path / "plain", image_folder, **one)
    elastic = train_here(tmp_path / "elastic", image_folder, **one, **{"train.determinism": "elastic"})
    assert_bit_equal(plain, elastic)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_neighbours_are_added_first(count):
    lists = [[torch.randn(5), torch.randn(3)] for _ in range(count)]
    total, rows = PairwiseSum(), [torch.cat(tensors) for tensors in lists]
    for tensors in lists:
        total.add([tensor.clone() for tensor in tensors])
        assert len(total._partial) <= count.bit_length()
    while len(rows) > 1:
        rows = [a + b for a, b in zip(rows[::2], rows[1::2], strict=True)]
    assert torch.equal(torch.cat(total.take()), rows[0])


def test_a_sum_that_is_no_tree_is_refused():
    total = PairwiseSum()
    for _ in range(3):
        total.add([torch.ones(1)])
    with pytest.raises(ValueError, match="got 3 lists of tensors"):
        total.take()


SUMS = """
import torch
import torch.distributed as dist
from fastddpm.training import gradients
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
rows = torch.randn(world, 101, generator=torch.Generator().manual_seed(0))
mine, gradients.CHUNK = rows[rank].clone(), 40
gradients.sum_over_ranks(mine, world)
while len(rows) > 1:
    rows = rows[0::2] + rows[1::2]
assert torch.equal(mine, rows[0]), (mine - rows[0]).abs().max()
dist.barrier()
print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_are_the_upper_part_of_the_tree(tmp_path, world):
    (tmp_path / "sums.py").write_text(SUMS)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(world), "--master_port",
         str(free_port()), str(tmp_path / "sums.py")],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout.count("equal") == world, done.stderr  # ranks may write into one line


def test_neighbouring_micro_batches_are_on_one_rank():
    config = TrainConfig(batch_size=16, micro_batch_size=2, determinism="elastic")
    dealt = [[int(p[0]) // 2 for p in Split.of(config, rank, 4).positions(0)] for rank in range(4)]
    assert dealt == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize("micro", ["null", "auto", "3"])
def test_micro_batches_that_make_no_tree_are_refused(micro):
    given = {"train.determinism": "elastic", "train.batch_size": "24", "train.micro_batch_size": micro}
    if micro == "3":  # eight of them do
        assert load_config(None, {"output_dir": "x", "data.source": "x", **given}).train.micro_batch_size == 3
        given["train.batch_size"] = "36"
    with pytest.raises(ValueError, match=r"over a power of two, such as (24, 12, 6, 3|36, 18, 9)"):
        load_config(None, {"output_dir": "x", "data.source": "x", **given})


def test_other_numbers_of_processes_are_refused():
    config = TrainConfig(batch_size=16, micro_batch_size=2, determinism="elastic")
    with pytest.raises(ValueError, match=r"wants 1, 2, 4, ... processes, got 3"):
        Split.of(config, 0, 3)


def test_threads_that_follow_the_machine_are_refused(tmp_path, image_folder):
    with pytest.raises(ValueError, match=r"elastic wants --train.num_threads"):
        train_here(tmp_path / "run", image_folder, **{**ELASTIC, "train.num_threads": "null"})


def test_another_micro_batch_is_refused_when_a_run_goes_on(tmp_path, image_folder):
    train_here(tmp_path / "run", image_folder, **ELASTIC)
    with pytest.raises(ValueError, match="train.micro_batch_size was 2, now 4"):
        train_here(tmp_path / "run", image_folder, **{**ELASTIC, "train.micro_batch_size": "4"})


def test_the_process_is_left_as_it_was(tmp_path, image_folder):
    train_here(tmp_path / "run", image_folder, **{"train.determinism": "exact", "train.num_images_seen": "8"})
    assert not torch.are_deterministic_algorithms_enabled()
