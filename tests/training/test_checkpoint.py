import json
import os
import warnings

import pytest

from fastddpm import files
from fastddpm.training import checkpoint
from fastddpm.training.checkpoint import CorruptCheckpointError, clean, commit, newest, verify


def save(root, step, text="weights", keep=10):
    def write(folder):
        (folder / "model.safetensors").write_text(f"{text} {step}")
        (folder / "state.json").write_text("{}")

    return commit(root, step, write, {"world_size": 1}, keep=keep)


def test_commit_writes_a_verified_folder(tmp_path):
    path = save(tmp_path, 7)
    manifest = verify(path)
    assert path.name == "step-00000007"
    assert (manifest["step"], manifest["world_size"]) == (7, 1)
    assert set(manifest["files"]) == {"model.safetensors", "state.json"}
    assert (tmp_path / "latest").read_text() == "step-00000007\n"


def test_newest_goes_by_number_not_by_time(tmp_path):
    for when, step in enumerate((99, 200, 1000)):
        os.utime(save(tmp_path, step), (-when, -when))
    assert newest(tmp_path)[1]["step"] == 1000


def test_no_checkpoint_is_none(tmp_path):
    assert newest(tmp_path / "nothing") is None


@pytest.mark.parametrize("harm", ["truncate", "flip", "delete", "manifest", "swap"])
def test_f7_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, harm):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    file = path / "model.safetensors"
    if harm == "truncate":
        file.write_bytes(file.read_bytes()[:-1])
    elif harm == "flip":
        data = bytearray(file.read_bytes())
        data[0] ^= 1
        file.write_bytes(data)
    elif harm == "delete":
        file.unlink()
    elif harm == "manifest":
        (path / "manifest.json").write_text("{")
    else:
        file.write_bytes((tmp_path / "step-00000001" / "model.safetensors").read_bytes())
    name = "manifest.json" if harm == "manifest" else "model.safetensors"
    with pytest.warns(UserWarning, match=rf"step-00000002.{name} .*; going back"):
        assert newest(tmp_path)[1]["step"] == 1


def test_f7_damaged_later_ones_never_crowd_out_the_good_one(tmp_path):
    save(tmp_path, 10)
    (save(tmp_path, 20) / "model.safetensors").write_text("damaged")
    save(tmp_path, 15, keep=1)
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-00000015"]
    assert newest(tmp_path)[1]["step"] == 15


def test_f7_no_whole_checkpoint_stops_the_run(tmp_path):
    path = save(tmp_path, 1)
    (path / "state.json").write_text("changed")
    with (
        pytest.warns(UserWarning, match="going back"),
        pytest.raises(CorruptCheckpointError, match="no whole checkpoint"),
    ):
        newest(tmp_path)


def test_f7_missing_latest_does_not_mean_from_the_start(tmp_path):
    save(tmp_path, 3)
    (tmp_path / "latest").unlink()
    assert newest(tmp_path)[1]["step"] == 3


def test_f9_old_ones_are_removed_after_the_commit_only(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        save(tmp_path, step, keep=2)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000002", "step-00000003"]

    def full_disk(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 4, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-00000002", "step-00000003"]
    assert newest(tmp_path)[1]["step"] == 3


def test_f9_failed_removal_warns_and_goes_on(tmp_path, monkeypatch):
    save(tmp_path, 1, keep=1)

    def refuse(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError("busy")

    monkeypatch.setattr(checkpoint.shutil, "rmtree", refuse)
    with pytest.warns(UserWarning, match="step-00000001 could not be removed: busy"):
        save(tmp_path, 2, keep=1)
    assert newest(tmp_path)[1]["step"] == 2


def test_half_written_folders_are_not_seen_and_cleaned(tmp_path):
    save(tmp_path, 1)
    left = tmp_path / ".step-00000009.tmp"
    left.mkdir()
    (left / "model.safetensors").write_text("half")
    assert newest(tmp_path)[1]["step"] == 1
    clean(tmp_path)
    assert not left.exists()


@pytest.mark.parametrize("stage", ["write", "manifest", "fsync", "rename", "latest", "cleanup"])
def test_f2_killed_at_each_stage_of_a_save_a_whole_checkpoint_remains(tmp_path, stage):
    """A child process dies on the spot (no clean-up code runs) at each stage of its second save."""
    save(tmp_path, 1, keep=1)
    pid = os.fork()
    if pid == 0:
        die_at(stage)
        save(tmp_path, 2, keep=1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9, "the stage was never reached"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path, manifest = newest(tmp_path)
    assert manifest["step"] == (2 if stage in ("latest", "cleanup") else 1)
    assert (path / "model.safetensors").read_text() == f"weights {manifest['step']}"
    clean(tmp_path)
    assert not list(tmp_path.glob(".*"))


def die_at(stage):
    original, mkdir = os.replace, checkpoint.Path.mkdir

    def die(*_):
        os._exit(9)

    def rename(source, target):
        if target.name.startswith("step-"):
            os._exit(9)
        original(source, target)

    def mkdir_then_die(self, *args, **kwargs):
        mkdir(self, *args, **kwargs)
        if self.name.endswith(".tmp"):
            os._exit(9)

    place, name, instead = {
        "write": (checkpoint.Path, "mkdir", mkdir_then_die),
        "manifest": (checkpoint, "_write_manifest", die),
        "fsync": (files, "sync", die),
        "rename": (os, "replace", rename),
        "latest": (checkpoint, "write_text", die),
        "cleanup": (checkpoint, "_remove_others", die),
    }[stage]
    setattr(place, name, instead)


def test_manifest_is_json(tmp_path):
    assert json.loads((save(tmp_path, 1) / "manifest.json").read_text())["format"] == checkpoint.FORMAT_VERSION
