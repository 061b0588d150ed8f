"""The arithmetic of docs/scaling.md against numbers made by hand and a real checkpoint; its tables; the script."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

import fastddpm
from benchmarks import scaling_model as model
from benchmarks.harness import ROOT
from benchmarks.scaling import job_of, main, refreshed
from benchmarks.scaling_check import Case, fit_link, judged
from benchmarks.scaling_model import Hardware, Job, Link
from tests.training.runs import train_here

JOB = Job(num_parameters=1000, num_tensors=10, buffer_bytes=80, num_averages=2, flops_per_image=5e6, batch_size=64,
          micro_batch_size=8, num_operations=100, fixed_activation_bytes=7, activation_bytes_per_image=11)  # fmt: skip
LINK = Link(bytes_a_second=1e6, latency_seconds=1e-3)
NODES = Hardware(
    flops_a_second=1e9, memory_bytes_a_second=1e6, within=LINK, between=Link(bytes_a_second=1e5, latency_seconds=1e-2),
    devices_a_node=4, memory_bytes=1e9, disk_bytes_a_second=1e6, hash_bytes_a_second=5e5,
)  # fmt: skip
PAGE = ROOT / "docs" / "scaling.md"


def test_a_ring_sends_twice_all_but_ones_own_share():
    assert model.ring_bytes(1000, 1) == 0
    assert model.ring_bytes(1000, 2) == 1000
    assert model.ring_bytes(1000, 4) == 1500
    assert model.ring_seconds(1000, 4, LINK) == pytest.approx(1500 / 1e6 + 6e-3)


def test_nodes_exchange_shares():
    inside = 1500 / 1e6 + 6e-3  # a ring of four
    between = 2 * (3 / 4) * 250 / 1e5 + 2 * 2 * 1e-2  # each of four nodes' shares of 250 bytes, up and down a tree
    assert model.exchange_seconds(1000, 16, NODES) == pytest.approx(inside + between)
    assert model.exchange_seconds(1000, 4, NODES) == pytest.approx(inside)
    assert model.exchange_seconds(1000, 1, NODES) == 0


def test_processes_that_share_cores_are_slower_and_messages_are_not():
    shared = replace(NODES, num_slots=2)
    assert model.exchange_seconds(1000, 4, shared) == pytest.approx(2 * 1500 / 1e6 + 6e-3)
    assert model.step_time(JOB, shared, 4).compute == 2 * model.step_time(JOB, NODES, 4).compute


def test_ddps_buckets_begin_with_a_small_one():
    assert [model.num_buckets(size) for size in (4, 2**20, 2**20 + 1, 26 * 2**20, 27 * 2**20)] == [1, 1, 2, 2, 3]


def test_a_step_is_its_passes_the_update_and_the_exchange():
    step = model.step_time(JOB, NODES, 3)  # eight micro-batches: three on one rank
    assert step.compute == pytest.approx(3 * 8 * 5e6 / 1e9)
    assert step.update == pytest.approx(4 * 1000 * 16 / 1e6)
    assert step.backward == pytest.approx(8 * 5e6 / 1e9 * 2 / 3)
    expected = model.exchange_seconds(4000, 3, NODES) + model.exchange_seconds(4, 3, NODES)
    assert step.exchange == pytest.approx(expected)
    assert step.nothing_hidden == pytest.approx(step.compute + step.update + expected)
    assert step.all_hidden == pytest.approx(step.compute + step.update)
    assert model.step_time(JOB, NODES, 1).exchange == 0


def test_what_does_not_fit_behind_the_backward_pass_shows():
    step = model.step_time(replace(JOB, flops_per_image=1e3), NODES, 8)
    assert step.exchange > step.backward
    assert step.all_hidden == pytest.approx(step.compute + step.update + step.exchange - step.backward)


def test_a_small_networks_pass_takes_the_host_as_long_as_ever():
    slow_host = replace(NODES, operation_seconds=1e-2)
    assert model.step_time(JOB, slow_host, 8).compute == pytest.approx(100 * 1e-2)


def test_at_most_as_many_processes_as_micro_batches():
    assert JOB.most_processes == 8
    with pytest.raises(ValueError, match="9 processes share 8 micro-batches; use at most 8"):
        model.step_time(JOB, NODES, 9)
    assert model.per_device(JOB, 3, 1024).images_a_process(1024) == 3


def test_memory_by_hand():
    assert model.kept_bytes(JOB) == 4000 * 6 + 80 * 3, "weights, gradients, two moments, two averages"
    assert model.kept_bytes(JOB, 8) == model.kept_bytes(JOB) / 8
    assert model.peak_bytes(JOB, 2) == model.kept_bytes(JOB) + 7 + 8 * 11
    assert model.largest_model(80e9, 1) == 4e9
    assert model.largest_model(80e9, 1, 8) == 32e9


def test_checkpoints_by_hand():
    assert model.checkpoint_bytes(JOB) == 4000 * 5 + 80 * 3 + 40
    assert model.save_seconds(JOB, NODES) == pytest.approx(20_280 / 1e6 + 20_280 / 5e5)
    assert model.resume_bytes(JOB, 4) == 5 * 20_280
    assert model.save_host_bytes(JOB) == 8040
    assert model.sharded_ring_bytes(JOB, 4) == 0.75 * 12_000


@pytest.mark.parametrize("settings", [
    pytest.param({}, marks=pytest.mark.slow),
    {"model.norm_type": "group", "model.norm_num_groups": "2", "train.ema_decay": "[0.9, 0.99]"},
])  # fmt: skip
def test_the_bytes_of_a_real_checkpoint(tmp_path, image_folder, settings):
    """Tensors to the byte; names and JSON come on top."""
    wide = {"model.block_out_channels": "[16, 32]", **settings}
    folder = train_here(tmp_path / "run", image_folder, **wide)
    given = {"data.source": str(image_folder), "data.cache_dir": str(tmp_path / "cache"), **wide}
    job = job_of(None, tuple(sorted({**given, "model.time_embedding_dim": "8", "data.num_held_out": "4"}.items())))
    files = list((folder / "checkpoints" / "step-00000020").glob("*.safetensors"))
    assert len(files) == 2 + job.num_averages
    headers = sum(8 + int.from_bytes(path.read_bytes()[:8], "little") for path in files)
    assert sum(path.stat().st_size for path in files) == model.checkpoint_bytes(job) + headers


def test_a_job_is_what_the_network_is():
    config = fastddpm.load_config("recommended-32", {"output_dir": "runs/none"})
    job = job_of("recommended-32")
    assert (job.batch_size, job.num_averages, job.buffer_bytes) == (config.train.batch_size, 1, 0)
    assert 0.6e6 < job.num_parameters < 0.8e6
    assert 100 < job.num_operations < 1000
    assert job.activation_bytes_per_image > 0


def test_images_that_are_nowhere_need_a_size():
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz is not here.*--data.image_size N"):
        job_of("mnist-paper")


def test_a_link_is_found_again_in_its_own_sums():
    seconds = {size: model.ring_seconds(size, 4, LINK) for size in (4, 1000, 10**5, 10**7)}
    found = fit_link(seconds, 4)
    assert found.bytes_a_second == pytest.approx(1e6)
    assert found.latency_seconds == pytest.approx(1e-3)


def test_processes_that_do_as_predicted_have_no_error():
    machine = replace(NODES, num_slots=2, devices_a_node=2**20)
    cases = []
    for world_size in (1, 2, 4):
        job = model.per_device(JOB, 8, world_size)
        step = model.step_time(job, machine, world_size)
        sums = [(size, model.exchange_seconds(size, world_size, machine)) for size in (4, 1000, 4000, 8000)]
        found = {
            "whole": step.nothing_hidden, "compute": step.compute, "update": step.update, "peak_gib": 0.1,
            "sums": sums if world_size > 1 else [],
            "checkpoint": {"bytes": model.checkpoint_bytes(job), "seconds": 0.5},
        }  # fmt: skip
        cases.append(Case(job, 8, world_size, [found, {**found, "whole": found["whole"] * 1.001}]))
    rows, bars = judged(cases, 2)
    assert all(bar.is_reached for bar in bars)
    assert all(abs(row["relative error"]) < 2e-3 for row in rows)
    cases[2].rounds[:] = [{**found, "whole": 2 * found["whole"]} for found in cases[2].rounds]
    assert not judged(cases, 2)[1][2].is_reached


def test_tables_say_which_processes_have_nothing_to_do(capsys):
    main(["recommended-32", "--strong", "--worlds", "1", "64", "128"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("| 64 | 1 |")
    assert lines[-1].startswith("| 128 | refused: 64 have work |")


def test_blocks_of_a_page_are_made_anew():
    text = "before\n<!-- scaling: --limits -->\nold\n<!-- end -->\nafter\n"
    once = refreshed(text, PAGE.parent)
    assert once.startswith("before\n<!-- scaling: --limits -->\n| parameters |")
    assert once.endswith("<!-- end -->\nafter\n")
    assert "old" not in once
    assert refreshed(once, PAGE.parent) == once


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", PAGE.read_text()))
def test_links_of_the_page_lead_somewhere(link):
    assert (PAGE.parent / link).exists()


@pytest.mark.slow
def test_the_pages_tables_are_those_of_the_script():
    """It builds a network of 114 million parameters."""
    assert refreshed(PAGE.read_text(), PAGE.parent) == PAGE.read_text()


@pytest.mark.slow
def test_the_script_measures_at_tiny_size(tmp_path):
    """Whether it works, never how fast anything is: its bars are not looked at."""
    page = tmp_path / "page.md"
    page.write_text("<!-- record: none.json -->\n<!-- end -->\n")
    words = [
        "mnist-paper", "--data.source", "digits", "--data.num_images", "64", "--data.num_held_out", "0",
        "--model.block_out_channels", "[4, 8, 16]", "--measure", "--tiny", "--rounds", "1", "--processes", "1", "2",
        "--out", str(tmp_path / "out"), "--page", str(page),
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "benchmarks.scaling", *words], cwd=ROOT, check=True, timeout=560)
    record = json.loads((tmp_path / "out.json").read_text())
    assert [row["unit"] for row in record["rows"]] == ["ms a step"] * 2 + ["ms a sum"] * 2 + ["ms a save"]
    assert all(row["p50"] > 0 for row in record["rows"])
    assert "2 images a process, 2 process(es)" in page.read_text()
