"""Files are whole or not there, written in one place of the code only, and by one job at a time."""

import ast
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastddpm
from fastddpm import files
from fastddpm.config.runs import find_run
from fastddpm.data.sources.folders import walk

LIBRARY = Path(fastddpm.__file__).parent


def test_a_file_is_whole_and_nothing_else_is_left(tmp_path):
    files.write_json(tmp_path / "deep" / "er" / "x.json", {"name": "\udc80 ü"})
    assert json.loads((tmp_path / "deep" / "er" / "x.json").read_text()) == {"name": "\udc80 ü"}
    files.write_text(tmp_path / "x.txt", "\udc80 ü")
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == "\\udc80 ü"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "x.txt"]


def fails_with(error, path):
    with files.written(path) as temporary:
        temporary.write_text("ne")
        raise error


def test_an_error_leaves_the_old_file_and_no_other_and_names_it(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        fails_with(KeyboardInterrupt(), path)
    for names in ((), (str(files.aside(path)),)):
        with pytest.raises(OSError, match="No space") as caught:
            fails_with(OSError(errno.ENOSPC, "No space left on device", *names), path)
        assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, files.written(tmp_path / "x"):
        (tmp_path / "source").read_text()
    assert caught.value.filename == str(tmp_path / "source")


def test_links_are_replaced_and_not_written_through(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for link in (tmp_path / "x", files.aside(tmp_path / "x")):
        link.symlink_to(mine)
    files.write_text(tmp_path / "x", "new")
    assert mine.read_text() == "mine"
    assert (tmp_path / "x").read_text() == "new"
    assert not (tmp_path / "x").is_symlink()


def test_what_a_killed_process_left_goes_when_it_is_written_again(tmp_path):
    files.aside(tmp_path / "x").mkdir()
    (files.aside(tmp_path / "x") / "half").write_text("ha")
    files.write_text(tmp_path / "x", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_and_its_folder_are_synced_in_this_order(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace

    def noted_sync(descriptor):
        calls.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def noted_replace(*paths):
        calls.append("rename")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    files.write_text(tmp_path / "x", "new")
    assert calls == [".x.tmp", "rename", tmp_path.name]
    calls.clear()
    (tmp_path / "made" / "in").mkdir(parents=True)
    (tmp_path / "made" / "in" / "y").touch()
    files.put(tmp_path / "made", tmp_path / "out")
    assert calls == ["made", "y", "in", "rename", tmp_path.name]


def test_a_folder_takes_the_place_of_an_older_one(tmp_path):
    for text in ("old", "new"):
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "x").write_text(text)
        files.put(tmp_path / "made", tmp_path / "out")
    assert (tmp_path / "out" / "x").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# ------------------------------------------------------------------------------------------ locks


def test_a_second_job_is_refused_until_the_first_one_is_gone(tmp_path):
    out = tmp_path / "deep" / "out"
    hold = (
        "import sys, pathlib; from fastddpm import files\nwith files.locked(pathlib.Path(sys.argv[1])): input(print(1))"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "1\n"
    (tmp_path / "link").symlink_to(tmp_path / "deep")
    for name in (out, tmp_path / "link" / "out", tmp_path / "deep" / ".." / "deep" / "out"):
        with pytest.raises(files.InUseError, match="is in use by a running job; wait for it, or choose another --out$"):
            files.locked(name).__enter__()
    other.kill()
    other.communicate()
    with files.locked(out):
        pass
    assert not list((tmp_path / "deep").iterdir()), "nothing was made, and the lock is gone"


def test_the_lock_lies_inside_where_the_folder_around_may_not_be_written_to(tmp_path, monkeypatch):
    out = tmp_path / "mounted"
    out.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    with files.locked(out):
        assert [path.name for path in out.iterdir()] == [".mounted.lock"]
        assert [path.name for path in tmp_path.iterdir()] == ["mounted"]
    assert not list(out.iterdir())


def test_who_may_not_lock_is_told_the_place_that_was_asked_for():
    with pytest.raises(PermissionError) as caught:
        files.locked(Path("/sys/kernel/x.npz")).__enter__()
    assert caught.value.filename == "/sys/kernel/x.npz"


# ------------------------------------------------------------------------------------------ the only place

WRITERS = {
    "write_text", "write_bytes", "replace", "rename", "fsync", "save", "savez", "savez_compressed", "save_file",
    "savefig", "copyfile", "copy", "copytree", "move", "open", "ZipFile", "ParquetWriter", "symlink_to", "link",
}  # fmt: skip
ELSEWHERE = {
    "files.py": "the place itself",
    "data/store_filling.py": "grows a store chunk by chunk in a folder that is put in place by files.put",
    "training/metrics.py": "appends rows; a torn last one is left out by who reads them",
    "training/state.py": "writes into a checkpoint's folder, which is put in place by files.put",
    "models/paper_unet.py": "travels with the weights, and knows nothing of this package",
    "pipelines/portable.py": "travels with the weights, and knows nothing of this package",
    "verbs/export/export.py": "writes a graph into a folder that is put in place by files.written",
    "hub/folder.py": "copies into a temporary folder that is uploaded from",
}


def writes_in(tree):
    """(line, call) of what writes a file, but for what is given the name of a `with written(...)`, or bytes."""
    places = {
        item.optional_vars.id
        for node in ast.walk(tree) if isinstance(node, ast.With)
        for item in node.items if isinstance(item.optional_vars, ast.Name)
    }  # fmt: skip
    places |= {
        node.targets[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.value) in ("io.BytesIO()", "io.StringIO()")
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        given = {part.id for part in (owner, *node.args[:2]) if isinstance(part, ast.Name)}
        if name in WRITERS and not given & places and not is_harmless(name, owner, node):
            yield node.lineno, ast.unparse(node)


def is_harmless(name, owner, node):
    """Reading, text, and what is called so and writes through files.py."""
    if not node.args and name in ("save", "copy"):
        return True  # of arrays; of a run, through its checkpoint
    if owner is None and name not in ("open", "save_file", "ZipFile", "ParquetWriter"):
        return True  # dataclasses.replace, functions of files.py, safetensors' bytes
    if name in ("open", "ZipFile"):
        words = [part.value for part in (*node.args, *node.keywords) if isinstance(part, ast.Constant)]
        return not any(isinstance(word, str) and set(word) & set("wax+") and len(word) < 4 for word in words)
    if name == "replace" and len(node.args) != 1:
        return ast.unparse(owner) != "os"  # of text
    return owner is not None and ast.unparse(owner) in ("files", "formats", "sheet", "dataclasses")


def test_nobody_else_writes_a_file():
    found = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        name = str(path.relative_to(LIBRARY))
        calls = [f"{name}:{line}: {call}" for line, call in writes_in(ast.parse(path.read_text()))]
        if calls:
            found[name] = calls
    assert {name: calls for name, calls in found.items() if name not in ELSEWHERE} == {}, "use fastddpm.files"
    assert sorted(found) == sorted(ELSEWHERE), "an exception that is none"


def test_folders_in_one_another_are_walked_to_a_depth(tmp_path):
    """`os.walk` before Python 3.12 ends in a RecursionError at a thousand."""
    root, here = tmp_path / "root", os.open(tmp_path, os.O_RDONLY)
    for name in ["root", *["a"] * (files.MAX_FOLDERS + 1)]:
        os.mkdir(name, dir_fd=here)
        inside = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inside
    os.close(here)
    assert len(list(files.walk(root / "a"))) == files.MAX_FOLDERS + 1
    for look in (walk, find_run):
        with pytest.raises(ValueError, match="root has folders more than 100 deep in one another"):
            look(root)
