"""What trackers get is what metrics.jsonl holds. TensorBoard is read back; W&B and trackio work without a network."""

import importlib.util
import json
import struct
import time

import pytest
from accelerate import Accelerator

import fastddpm
from fastddpm.config import load_config
from fastddpm.training.trackers import check_extras, plain_settings, scalars, tracked, tracking_options
from tests.training.runs import TINY, train_here

SECRET = "hf_do_not_write_me_anywhere"


def events(folder):
    """tag -> {images seen: value} of all event files of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "trackers" / "fastddpm"), size_guidance={"scalars": 0})
    found.Reload()
    values = {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    assert all(len(dict(pairs)) == len(pairs) for pairs in values.values()), "no value stands twice"
    return {tag: dict(pairs) for tag, pairs in values.items()}, found.Tags()["images"]


def logged(folder):
    """The same of metrics.jsonl."""
    values = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name, number in scalars(row).items():
            values.setdefault(name, {})[row["images_seen"]] = number
    return values


def config_of(tmp_path, image_folder, **settings):
    places = {"output_dir": str(tmp_path / "run"), "data.source": str(image_folder)}
    return load_config(None, {**TINY, **places, "data.cache_dir": str(tmp_path / "cache"), **settings})


def assert_no_secret(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_tensorboard_holds_the_rows_also_of_a_run_that_was_broken(tmp_path, image_folder, monkeypatch):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    settings = {"watch.trackers": "[tensorboard]", "watch.preview_every_images": "80"}
    with pytest.raises(RuntimeError, match="in the middle"):
        train_here(tmp_path / "run", image_folder, fail_at=13, **settings)
    train_here(tmp_path / "run", image_folder, **settings)
    values, pictures = events(tmp_path / "run")
    wanted = logged(tmp_path / "run")
    assert {"loss", "loss_by_quartile/4", "held_out_loss", "train_set_loss", "images_per_second"} <= wanted.keys()
    for name, by_step in wanted.items():
        assert values[name] == pytest.approx(by_step, rel=1e-6), name
    assert pictures == ["samples"]
    assert_no_secret(tmp_path / "run")


@pytest.mark.slow
def test_wandb_works_offline(tmp_path, image_folder, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    train_here(tmp_path / "run", image_folder, **{"watch.trackers": "[wandb]"})
    (path,) = (tmp_path / "run" / "trackers" / "wandb").glob("offline-run-*/run-*.wandb")
    history, deadline = {}, time.monotonic() + 30
    while "exit" not in history and time.monotonic() < deadline:  # W&B's own process writes on for a moment
        time.sleep(0.1)
        history = wandb_history(path.read_bytes())
    for name, by_step in logged(tmp_path / "run").items():
        assert history[name] == pytest.approx(by_step), name
    assert_no_secret(tmp_path / "run")


@pytest.mark.slow
def test_wandb_goes_on_with_the_same_run(tmp_path, image_folder, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = {"watch.trackers": "[wandb]"}
    with pytest.raises(RuntimeError, match="in the middle"):
        train_here(tmp_path / "run", image_folder, fail_at=13, **settings)
    train_here(tmp_path / "run", image_folder, **settings)
    paths = list((tmp_path / "run" / "trackers" / "wandb").glob("offline-run-*/run-*.wandb"))
    kept = (tmp_path / "run" / "trackers" / "run-id.txt").read_text()
    assert {path.name for path in paths} == {f"run-{kept}.wandb"}
    train_here(tmp_path / "other", image_folder, **settings)
    assert (tmp_path / "other" / "trackers" / "run-id.txt").read_text() != kept


def wandb_history(data):
    """name -> {step: value} of an offline W&B file: protobuf records in blocks of 32 KiB, as LevelDB writes its log.

    Also "exit", once the run's last record is there.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    at, record, values = 7, b"", {}
    while at + 7 <= len(data) and at + 7 + int.from_bytes(data[at + 4 : at + 6], "little") <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        record, at = record + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or its last part
            found = Record.FromString(record)
            if found.HasField("exit"):
                values["exit"] = {}
            row = found.history.item
            numbers = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row}
            for name, number in numbers.items():
                values.setdefault(name, {})[numbers["_step"]] = number
            record = b""
    return values


def test_trackio_goes_on_with_the_same_run_on_this_machine_alone(tmp_path, image_folder, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_TOKEN", SECRET)
    pytest.importorskip("trackio", reason="the extra trackio is not installed")
    from trackio.sqlite_storage import SQLiteStorage

    settings = {"watch.trackers": "[trackio]"}
    with pytest.raises(RuntimeError, match="in the middle"):
        train_here(tmp_path / "run", image_folder, fail_at=13, **settings)
    train_here(tmp_path / "run", image_folder, **settings)
    kept = (tmp_path / "run" / "trackers" / "run-id.txt").read_text()
    assert SQLiteStorage.get_runs("fastddpm") == [f"run-{kept}"]
    rows = SQLiteStorage.get_logs("fastddpm", f"run-{kept}")
    for name, by_step in logged(tmp_path / "run").items():
        found = [(row["step"], row[name]) for row in rows if name in row]
        assert len(dict(found)) == len(found), "no value stands twice"
        if name in ("images_per_second", "data_wait_share"):  # of a step that was done twice, the first time's
            assert {step for step, _ in found} == by_step.keys()
        else:
            assert dict(found) == pytest.approx(by_step), name
    assert_no_secret(tmp_path / "run")
    train_here(tmp_path / "other" / "run", image_folder, **settings)
    assert len(SQLiteStorage.get_runs("fastddpm")) == 2, "another run of the same folder's name"


def test_trackers_are_closed_when_a_run_fails(tmp_path, image_folder):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    config = config_of(tmp_path, image_folder, **{"watch.trackers": "[tensorboard]"})
    accelerator = Accelerator(cpu=True, **tracking_options(config))
    with pytest.raises(RuntimeError, match="in the middle"), tracked(accelerator, config, 0):  # noqa: PT012
        (tracker,) = accelerator.trackers
        accelerator.log({"loss": 1.0}, step=8)
        raise RuntimeError("in the middle")
    assert tracker.writer.all_writers is None, "closed"
    assert accelerator.trackers == []
    assert events(tmp_path / "run")[0] == {"loss": {8: 1.0}}


def test_a_tracker_that_does_not_start_is_one_line(tmp_path, image_folder):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    (tmp_path / "run" / "trackers").mkdir(parents=True)
    (tmp_path / "run" / "trackers" / "fastddpm").write_text("a file where a folder should be")
    with pytest.raises(ValueError, match=r"watch.trackers tensorboard could not be opened \(.*\); log in, set"):
        train_here(tmp_path / "run", image_folder, **{"watch.trackers": "[tensorboard]"})


def test_settings_are_plain_values(tmp_path, image_folder):
    settings = plain_settings(config_of(tmp_path, image_folder))
    assert settings["train.batch_size"] == 8
    assert settings["train.adam_betas"] == "[0.9, 0.999]"
    assert settings["data.image_size"] == "null"
    assert all(isinstance(value, int | float | str) for value in settings.values())


def test_scalars_have_the_losses_of_other_averages():
    row = {"step": 3, "images_seen": 24, "held_out_loss_of_others": {"ema-0.9": 0.5, "ema-0.99": 0.25}}
    assert scalars(row) == {"held_out_loss_of_others/ema-0.9": 0.5, "held_out_loss_of_others/ema-0.99": 0.25}


def test_scalars_leave_out_words_and_missing_values():
    row = {
        "step": 3,
        "images_seen": 24,
        "loss": None,
        "loss_by_quartile": [1.0, None, 2.0, 3.0],
        "kid_reals": "training",
    }
    assert scalars(row) == {"loss_by_quartile/1": 1.0, "loss_by_quartile/3": 2.0, "loss_by_quartile/4": 3.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"watch.trackers": "[wandb]"},
            r"trackers wandb needs the package wandb, .* pip install 'fastddpm\[wandb\]'",
        ),
    ],
)
def test_a_missing_package_is_named_with_its_extra_before_anything_is_written(
    tmp_path, image_folder, monkeypatch, settings, message
):
    found = importlib.util.find_spec
    hidden = ("wandb",)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in hidden else found(name, *a))
    config = config_of(tmp_path, image_folder, **settings)
    with pytest.raises(ValueError, match=message):
        fastddpm.train(config)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()
    check_extras(config_of(tmp_path, image_folder).watch)
