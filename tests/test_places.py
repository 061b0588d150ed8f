"""A full or closed disk is told with the option or variable that moves what lies there, whatever the verb."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fastddpm import cli
from fastddpm.cli.places import explained
from fastddpm.config import load_config
from fastddpm.data import store
from fastddpm.files import cache_root
from fastddpm.verbs.evaluate.request import JudgeRequest
from fastddpm.verbs.push import PushRequest

CLOSED = "/sys/kernel"
"""where not even root may make a folder"""


def said_by(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    assert stop.value.code == 2
    return capsys.readouterr().err.removeprefix("fastddpm: error: ").rstrip("\n")


def full(path, request, positionals=()):
    return explained(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)), request, positionals)


def test_a_closed_cache_is_told_by_its_variable_where_the_verb_has_no_option(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTDDPM_CACHE", f"{CLOSED}/cache")
    with pytest.raises(OSError, match="permitted|denied|read-only") as caught, store.locked(cache_root(None) / "key"):
        pass
    said = explained(caught.value, JudgeRequest(source="digits", out=tmp_path / "judge.safetensors"), ["source"])
    assert said.startswith(f"{CLOSED}/cache/key may not be read or written by this user (")
    assert said.endswith("; change its permissions, or choose another FASTDDPM_CACHE")


def test_a_closed_cache_is_told_by_its_option_where_the_verb_has_one(image_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FASTDDPM_CACHE", f"{CLOSED}/cache")
    for more in ((), ("--data.cache_dir", f"{CLOSED}/other")):
        said = said_by(capsys, "ingest", image_folder, "--out", tmp_path / "out", *more)
        assert said.endswith("; change its permissions, or choose another --data.cache_dir")


def test_a_closed_out_is_told_as_out(image_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))
    said = said_by(capsys, "judge", image_folder, "--out", f"{CLOSED}/judge.safetensors")
    assert said.endswith("; change its permissions, or choose another --out")


def test_the_closest_place_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    request = JudgeRequest(source=str(tmp_path / "in"), out=tmp_path / "out" / "judge.safetensors")
    for path, name in {
        tmp_path / "cache" / "key.part" / "images.npy": "FASTDDPM_CACHE",
        tmp_path / "fastddpm-save-x" / "model": "TMPDIR",
        tmp_path / "hf" / "datasets" / "x.arrow": "HF_HOME",
        tmp_path / "out" / "judge.safetensors": "--out",
        tmp_path / "out" / ".judge.safetensors.tmp": "--out",
    }.items():
        assert full(path, request, ["source"]).endswith(f"free some, or put {name} on a larger disk, and start again")
    assert full("/elsewhere/x", request).endswith("what was saved before is whole: free some, and start again")
    config = load_config("quickstart", {"output_dir": str(tmp_path / "run")})
    assert "or put --data.cache_dir on" in full(tmp_path / "cache" / "key", config)


def test_push_is_told_of_no_option_that_it_has_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    request = PushRequest(folder=tmp_path / "run", repo_id="user/name")
    assert "or put TMPDIR on" in full(tmp_path / "temporary" / "fastddpm-push-x" / "unet", request, ["folder"])
    closed = OSError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "run" / "unet"))
    assert explained(closed, request, ["folder"]).endswith("change its permissions, or choose another FOLDER")


def test_an_error_that_names_no_file_is_of_the_disk_that_is_full(tmp_path):
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("may not make mounts here (root is needed)")
    (tmp_path / "disk").mkdir()
    code = (
        "import errno, os; from fastddpm.cli.places import explained;"
        "from fastddpm.verbs.push import PushRequest;"
        "print(explained(OSError(errno.ENOSPC, 'full'), PushRequest(folder='x', repo_id='u/n'), ['folder']))"
    )
    script = f"mount -t tmpfs -o size=64k none {tmp_path}/disk && {sys.executable} -c {code!r}"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "bash", "-c", script], capture_output=True, text=True,
        check=False, env={**os.environ, "FASTDDPM_CACHE": str(tmp_path / "disk" / "cache"),
                          "PYTHONPATH": str(Path(cli.__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout.startswith(f"{tmp_path}/disk/cache has no room (full); "), done.stderr
    assert "or put FASTDDPM_CACHE on a larger disk" in done.stdout
