"""Tars, plain and as WebDataset has them; and kinds of files, told by how they begin."""

import bz2
import gzip
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.data import ingest
from fastddpm.data.opening import BadImage
from fastddpm.data.sources import WHOLE, find_source


def png(value=0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((3, 3), value, dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def tar(path, files, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def shard(classes, ending="cls"):
    pack = (lambda label: json.dumps({"label": label}).encode()) if ending == "json" else str.encode
    pairs = [{f"{i:04d}.png": png(i), f"{i:04d}.{ending}": pack(label)} for i, label in enumerate(classes)]
    return {name: content for pair in pairs for name, content in pair.items()}


def find(source, **options):
    return find_source(DataConfig(source=str(source), **options))


def message(source, **options) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is what the caller looks at
        find(source, **options).load()
    return str(error.value)


def seen(contents, split=WHOLE):
    """(class name, pixel) of each picture."""
    names = contents.label_names or list(map(str, range(9)))
    return [
        (None if picture.label is None else names[picture.label], int(np.asarray(picture.open()).max()))
        for picture in contents.splits[split].start_at(0)
    ]


@pytest.mark.parametrize("ending", ["cls", "json"])
@pytest.mark.parametrize("classes", [["1", "0", "1", "1"], ["cow", "ant", "cow", "cow"]])
def test_a_tar_of_pictures_with_their_classes(tmp_path, ending, classes):
    if ending == "json" and classes[0] == "1":
        classes = list(map(str, classes))
    source = find(tar(tmp_path / "set.tar", shard(classes, ending)))
    assert seen(source.load()) == list(zip(classes, range(4), strict=True))
    assert source.other_files == ()
    assert {label for label, _ in seen(find(tmp_path / "set.tar", label_column="none").load())} == {None}


def test_tars_of_a_folder_are_one_set_or_splits(tmp_path):
    for name in ("set-000.tar", "set-001.tar"):
        tar(tmp_path / "a" / name, shard("0101"))
    (tmp_path / "a" / "readme.txt").touch()
    assert seen(find(tmp_path / "a").load()) == [(label, i) for _ in "ab" for i, label in enumerate("0101")]
    assert find(tmp_path / "a").other_files == ("readme.txt",)
    for name, classes in (("train-000.tar", "01"), ("train-001.tar", "11"), ("val-000.tar", "0")):
        tar(tmp_path / "b" / name, shard(classes))
    contents = find(tmp_path / "b").load()
    assert set(contents.splits) == {"train", "val"}
    assert seen(contents, "train") == [("0", 0), ("1", 1), ("1", 0), ("1", 1)]
    assert seen(contents, "val") == [("0", 0)]


def test_a_tar_of_a_folder_is_read_as_the_folder(tmp_path):
    files = {"./photos/a/1.png": png(1), "./photos/b/2.png": png(2), "./photos/._1.png": b"", "./photos/notes.txt": b""}
    source = find(tar(tmp_path / "photos", files))  # whatever its name
    assert seen(source.load()) == [("a", 1), ("b", 2)]
    assert source.other_files == ("photos/notes.txt",)


def test_a_list_in_a_tar_gives_labels(tmp_path):
    rows = b"file_name,label\n1.png,x\n2.png,y\n3.png,x\n"
    files = {f"in/{i}.png": png(i) for i in (1, 2, 3)} | {"in/metadata.csv": rows}
    assert seen(find(tar(tmp_path / "in.tar", files)).load()) == [("x", 1), ("y", 2), ("x", 3)]


def test_nothing_of_a_tar_is_unpacked_and_links_in_it_are_no_pictures(tmp_path):
    path = tar(tmp_path / "in" / "a.tar", {"1.png": png(1)})
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("2.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(info)
    (tmp_path / "cache").mkdir()
    images = ingest(DataConfig(source=str(path), cache_dir=str(tmp_path / "cache")), show_progress=False)
    assert len(images.images) == 1
    assert not list(tmp_path.rglob("*.png"))
    assert [file.name for file in (tmp_path / "in").iterdir()] == ["a.tar"]


@pytest.mark.parametrize("harm", ["cut in a file", "cut behind a file", "two in one", "no header"])
def test_a_tar_that_is_not_whole_is_refused(tmp_path, harm):
    content = tar(tmp_path / "a.tar", {"1.png": png(1), "2.png": png(2)}).read_bytes()
    broken = {
        "cut in a file": content[:1200], "cut behind a file": content[:1024], "two in one": content * 2,
        "no header": content[:1024] + b"x" * 512 + content[1536:],
    }  # fmt: skip
    (tmp_path / "a.tar").write_bytes(broken[harm])
    assert "a.tar is no whole tar (" in message(tmp_path / "a.tar")


def test_a_file_in_a_tar_has_the_limits_of_one_in_a_zip(tmp_path, monkeypatch):
    monkeypatch.setattr("fastddpm.data.opening.MAX_FILE_BYTES", 20)
    big, empty = find(tar(tmp_path / "a.tar", {"1.png": png(), "2.png": b""})).load().splits[WHOLE].start_at(0)
    with pytest.raises(BadImage, match="the limit is 20"):
        big.open()
    with pytest.raises(BadImage, match="is empty"):
        empty.open()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("set.h5", b"\x89HDF\r\n\x1a\n" + bytes(60), "is HDF5; save the pictures by numpy.savez"),
        ("set.zip", b"7z\xbc\xaf\x27\x1c" + bytes(60), "is a 7z archive; unpack it, and give the folder"),
        ("set.rar", b"Rar!\x1a\7\0", "is a RAR archive; unpack it"),
        ("set.tar.bz2", bz2.compress(b"x"), "is packed by bzip2; unpack it"),
        ("set.gz", gzip.compress(b"x" * 99, mtime=0), "is packed by gzip; unpack it"),
        ("set.zip", b"<!DOCTYPE html>", "is a web page or XML; fetch or give the pictures themselves"),
        ("coco.json", b'{"images": []}', "is JSON; write a .jsonl or .csv file with file_name and label"),
        ("empty.bin", b"", "is empty (0 bytes); wanted"),
        ("notes.txt", b"hello", 'begins with 0x68656c6c, as no file of images that is read does; wanted "digits"'),
    ],
    ids=["HDF5", "7z", "RAR", "bzip2", "gzip", "HTML", "JSON", "empty", "text"],
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert message(tmp_path / name).startswith(f"{tmp_path / name} {expected}")


def test_a_packed_tar_says_how_it_is_read(tmp_path):
    tar(tmp_path / "set.tgz", {"1.png": png()}, "w:gz")
    assert "is a packed tar (.tar.gz); gunzip makes a .tar" in message(tmp_path / "set.tgz")


def test_a_folder_of_arrays_says_what_to_make_of_them(tmp_path):
    np.save(tmp_path / "0.npy", np.zeros((3, 3), np.uint8))
    assert "; of many arrays make one file: save the pictures by numpy.savez as images" in message(tmp_path)
