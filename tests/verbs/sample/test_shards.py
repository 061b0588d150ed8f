"""`fastddpm sample --shard_size`: a folder of Parquet files, each final by the process that drew it."""

import numpy as np
import pytest
from datasets import load_dataset

from fastddpm.config import DataConfig
from fastddpm.data import ingest
from fastddpm.verbs.sample import all_processes as job
from fastddpm.verbs.sample.outputs import Shards
from tests.verbs.sample.test_processes import check_world, every_byte, launch

SHARDS = [f"part-0000{shard}-of-00003.parquet" for shard in range(3)]
SIZE = ("--shard_size", 4, "--micro_batch_size", 2)
FOUR = [
    "--num_images", "10", "--num_inference_steps", "4", "--num_threads", "1", "--shard_size", "4",
    "--micro_batch_size", "2",
]  # fmt: skip


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def drawn(monkeypatch):
    """The micro-batches that are drawn; what `stop` holds is where the job ends."""
    indices, stop, original = [], [], job.draw_micro_batch

    def draw_micro_batch(pipeline, series, index, bar):
        if index in stop:
            stop.clear()
            raise KeyboardInterrupt
        indices.append(index)
        return original(pipeline, series, index, bar)

    monkeypatch.setattr(job, "draw_micro_batch", draw_micro_batch)
    return indices, stop


def test_shards_hold_the_images_of_one_file_and_are_read(model, tmp_path, draw, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    out = draw(model, tmp_path / "out", *SIZE, "--figure", tmp_path / "all.png")
    assert names(out) == [".sample.json", *SHARDS]
    assert (tmp_path / "all.png").exists()
    images = np.load(draw(model, tmp_path / "x.npz", "--micro_batch_size", 2))["images"]
    rows = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "datasets"))
    assert np.array_equal(np.stack([np.asarray(image) for image in rows["image"]]), images)
    assert rows["seed"][:] == list(range(10))
    source = ingest(DataConfig(source=str(out), cache_dir=str(tmp_path / "cache")), show_progress=False)
    assert np.array_equal(source.images[:, 0], images)
    assert source.labels.tolist() == [seed % 3 for seed in range(10)]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_shards_do_not_depend_on_the_number_of_processes(model, tmp_path, draw, processes):
    draw(model, tmp_path / "one" / "out", *FOUR)
    check_world(launch(model, tmp_path / "several", processes, outs=["out"], words=FOUR), processes, 1)
    assert every_byte(tmp_path / "one") == every_byte(tmp_path / "several")


@pytest.mark.slow
def test_a_lost_process_costs_its_shard_only(model, tmp_path, draw):
    done = launch(model, tmp_path / "out", 2, outs=["out"], kill_at=2, words=FOUR)  # the second rank's first
    assert done.returncode != 0
    assert SHARDS[1] not in names(tmp_path / "out" / "out")
    check_world(launch(model, tmp_path / "out", 3, outs=["out"], words=FOUR), 3, 1)
    draw(model, tmp_path / "one" / "out", *FOUR)
    assert every_byte(tmp_path / "out") == every_byte(tmp_path / "one")


def test_an_interrupted_job_draws_what_is_missing_only(model, tmp_path, draw, drawn):
    indices, stop = drawn
    straight = every_byte(draw(model, tmp_path / "straight", *SIZE))
    assert indices == [0, 1, 2, 3, 4]
    stop.append(3)
    with pytest.raises(SystemExit, match="130"):
        draw(model, tmp_path / "out", *SIZE)
    assert names(tmp_path / "out") == [".parts", SHARDS[0]], "a shard is final before the job is"
    indices.clear()
    assert every_byte(draw(model, tmp_path / "out", *SIZE)) == straight
    assert indices == [3, 4]


@pytest.mark.parametrize("damage", [None, 60], ids=["empty", "flipped"])
def test_a_damaged_shard_is_drawn_again(model, tmp_path, draw, drawn, capsys, damage):
    indices, stop = drawn
    straight = every_byte(draw(model, tmp_path / "straight", *SIZE))
    stop.append(3)
    with pytest.raises(SystemExit, match="130"):
        draw(model, tmp_path / "out", *SIZE)
    shard = tmp_path / "out" / SHARDS[0]
    content = shard.read_bytes()
    shard.write_bytes(
        b"" if damage is None else content[:damage] + bytes([content[damage] ^ 1]) + content[damage + 1 :]
    )
    indices.clear()
    assert every_byte(draw(model, tmp_path / "out", *SIZE)) == straight
    assert indices == [0, 1, 3, 4]
    assert "1 damaged file of an earlier start: drawn again" in capsys.readouterr().out


def test_a_job_killed_between_the_parts_and_their_shard_goes_on(model, tmp_path, draw, drawn, monkeypatch):
    straight = every_byte(draw(model, tmp_path / "straight", *SIZE))

    def killed(self, shard):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Shards, "_save", killed)
        with pytest.raises(SystemExit, match="130"):
            draw(model, tmp_path / "out", *SIZE)
    assert names(tmp_path / "out") == [".parts"]
    assert every_byte(draw(model, tmp_path / "out", *SIZE)) == straight


def test_shards_are_not_mixed_with_other_outputs(model, tmp_path, draw, refused):
    out = draw(model, tmp_path / "out", *SIZE)
    before = every_byte(out)
    assert "shard_size was 4, now 2; go on with those" in refused(
        model, out, "--shard_size", 2, "--micro_batch_size", 2
    )
    assert "shard_size was 4, now None; go on with those" in refused(model, out, "--micro_batch_size", 2)
    assert every_byte(out) == before


@pytest.mark.parametrize(
    ("out", "size", "message"),
    [
        ("x.npz", 4, "x.npz, one file; with --shard_size wanted a folder, for Parquet files"),
        ("out", 6, "shard_size (6) must be a multiple of micro_batch_size (4); use --shard_size 4"),
        ("out", 2, "shard_size (2) must be a multiple of micro_batch_size (4); use --shard_size 4"),
    ],
)
def test_what_is_no_shard_is_refused(model, tmp_path, refused, out, size, message):
    assert message in refused(model, tmp_path / out, "--shard_size", size)
    assert not (tmp_path / out).exists()
