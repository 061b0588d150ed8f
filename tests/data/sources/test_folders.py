"""Image files: in folders, in zips, in CelebA's layout."""

import os
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.data import BadImage
from fastddpm.data.sources import WHOLE, find_source

AROUND = "photos/of/us/"
"""the folder in a zip that holds everything"""


def find(source, **options):
    return find_source(DataConfig(source=str(source), **options))


def load(source):
    return find(source).load()


def message(source, **options) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is what the caller looks at
        find(source, **options).load()
    return str(error.value)


def names(contents, split=WHOLE):
    return [picture.name.removeprefix(AROUND) for picture in contents.splits[split].start_at(0)]


def labels(contents, split=WHOLE):
    return [picture.label for picture in contents.splits[split].start_at(0)]


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((3, 3), value, dtype=np.uint8)).save(path)


def zipped_zeros(file, size, said=None, method=zipfile.ZIP_DEFLATED):
    """The one picture of a zip, of bytes that are 0.

    Args:
        said: their number according to the zip; None: the true one.
    """
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("1.png", bytes(size))
        archive.infolist()[0].file_size = size if said is None else said
    (picture,) = load(file).splits[WHOLE].start_at(0)
    return picture


def packed(folder, file, inside=""):
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, inside + path.relative_to(folder).as_posix())
    return file


@pytest.fixture(params=["folder", "zip", "zip with one folder", "folder with one folder"])
def packing(request, tmp_path):
    """The same files as a folder or in a zip."""

    def give(folder):
        if request.param == "folder":
            return folder
        if request.param.startswith("folder"):
            shutil.copytree(folder, tmp_path / "unpacked" / AROUND)
            return tmp_path / "unpacked"
        return packed(folder, tmp_path / "packed.zip", AROUND if "with" in request.param else "")

    return give


def test_class_folders_become_labels_in_the_order_of_their_names(tmp_path, packing):
    for value, name in enumerate(("b/1.png", "a/deep/2.png", "c/0.png", "a/1.png")):
        save(tmp_path / "in" / name, value)
    contents = load(packing(tmp_path / "in"))
    assert names(contents) == ["a/1.png", "a/deep/2.png", "b/1.png", "c/0.png"]
    assert labels(contents) == [0, 0, 1, 2]
    assert contents.label_names == ("a", "b", "c")
    assert [np.asarray(p.open()).max() for p in contents.splits[WHOLE].start_at(0)] == [3, 1, 0, 2]


@pytest.mark.parametrize("files", [["a/1.png", "b/1.png", "loose.png"], ["1.png"]])
def test_other_folders_have_no_labels(tmp_path, files, packing):
    for name in files:
        save(tmp_path / "in" / name)
    contents = load(packing(tmp_path / "in"))
    assert labels(contents) == [None] * len(files)
    assert contents.label_names is None


def test_folders_that_are_no_classes_because_of_one_image_are_told(tmp_path, packing, caplog):
    for name in ("a/1.png", "b/1.png", "loose.png"):
        save(tmp_path / "in" / name)
    load(packing(tmp_path / "in"))
    (said,) = (record.getMessage().replace(AROUND, "") for record in caplog.records)
    assert said == "no labels: the folders a, b would be classes, but loose.png lies outside of them"


def test_a_lone_folder_train_stays_a_split(tmp_path, packing):
    for name in ("train/cat/1.png", "train/dog/1.png"):
        save(tmp_path / "in" / name)
    contents = load(packing(tmp_path / "in"))
    assert (list(contents.splits), contents.label_names) == (["train"], ("cat", "dog"))


def test_names_that_no_terminal_takes_are_escaped(tmp_path):
    for name in (b"a\xff/1.png", b"b/line\nbreak.png", "ü/猫.png".encode()):
        save(Path(os.fsdecode(bytes(tmp_path) + b"/" + name)))
    contents = load(tmp_path)
    assert contents.label_names == ("a\\udcff", "b", "ü")
    assert names(contents) == ["a\\udcff/1.png", "b/line\\nbreak.png", "ü/猫.png"]
    assert [np.asarray(picture.open()).shape for picture in contents.splits[WHOLE].start_at(0)] == [(3, 3)] * 3


def test_folders_named_train_and_test_are_splits(tmp_path, packing):
    for name in ("train/cat/1.png", "train/dog/1.png", "train/dog/2.png", "test/dog/9.png"):
        save(tmp_path / "in" / name)
    contents = load(packing(tmp_path / "in"))
    assert set(contents.splits) == {"train", "test"}
    assert names(contents, "train") == ["train/cat/1.png", "train/dog/1.png", "train/dog/2.png"]
    assert (labels(contents, "train"), labels(contents, "test")) == ([0, 1, 1], [1])
    assert contents.label_names == ("cat", "dog")


def test_a_folder_train_among_other_classes_is_a_class(tmp_path, packing):
    for name in ("train/1.png", "bus/1.png"):
        save(tmp_path / "in" / name)
    assert load(packing(tmp_path / "in")).label_names == ("bus", "train")


def test_other_files_are_told_and_hidden_ones_ignored(tmp_path, packing):
    for name in ("1.PNG", ".hidden.png", ".git/2.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in" / "labels.csv").touch()
    source = find(packing(tmp_path / "in"))
    assert [name.removeprefix(AROUND) for name in source.other_files] == ["labels.csv"]
    assert names(source.load()) == ["1.PNG"]


def test_a_folder_without_images_says_what_was_sought(tmp_path):
    (tmp_path / "notes.txt").touch()
    text = message(tmp_path)
    assert "holds no images: looked in all its folders for .png .jpg" in text
    assert "found 1 other files: notes.txt" in text


def test_folders_in_a_zip_may_be_written_with_backslashes(tmp_path):
    save(tmp_path / "1.png")
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        archive.write(tmp_path / "1.png", "cat\\1.png")
        archive.write(tmp_path / "1.png", "dog\\1.png")
    assert load(tmp_path / "windows.zip").label_names == ("cat", "dog")


def test_zips_that_are_broken_or_empty_are_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 cut")
    assert "a.zip is no whole zip file" in message(tmp_path / "a.zip")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").touch()
    assert "holds no images: looked for .png" in message(packed(tmp_path / "in", tmp_path / "b.zip"))


def test_a_member_that_unpacks_to_very_much_is_refused_before_it_is_unpacked(tmp_path):
    picture = zipped_zeros(tmp_path / "bomb.zip", 1, said=321 * 2**20)
    with pytest.raises(BadImage, match="has 336,592,896 bytes, the limit is 335,544,320"):
        picture.open()


def test_a_member_is_unpacked_no_further_than_its_size_in_the_zip(tmp_path):
    picture = zipped_zeros(tmp_path / "lie.zip", 64 * 2**20, said=100)
    tracemalloc.start()
    try:
        with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
            picture.open()
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_whose_unpacking_has_no_bound_is_refused(tmp_path, method):
    picture = zipped_zeros(tmp_path / "other.zip", 100, method=method)
    with pytest.raises(BadImage, match=f"is packed by zip's method {method}: pack the zip with deflate"):
        picture.open()


def test_linked_folders_are_followed_but_not_twice(tmp_path):
    save(tmp_path / "far" / "1.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "near").symlink_to(tmp_path / "far")
    assert names(load(root)) == ["near/1.png"]
    (root / "near" / "loop").symlink_to(root)
    assert "is the same folder as" in message(root)


def test_a_link_that_leads_nowhere_is_a_bad_image(tmp_path):
    (tmp_path / "1.png").symlink_to(tmp_path / "gone.png")
    (picture,) = load(tmp_path).splits[WHOLE].start_at(0)
    with pytest.raises(BadImage, match="is not there: a link that leads nowhere"):
        picture.open()


@pytest.mark.parametrize("name", ["subset", "image_column", "label_column"])
def test_settings_of_tables_are_refused_for_files(tmp_path, name):
    save(tmp_path / "1.png")
    kinds = "Parquet and data sets" if name == "subset" else "tables, and rows beside pictures"
    assert f"data.{name} is for {kinds}, and {tmp_path} has none of it" in message(tmp_path, **{name: "x"})


def test_a_lone_image_is_told_from_a_set(tmp_path):
    save(tmp_path / "1.png")
    assert "1.png is one image; give the folder that it lies in" in message(tmp_path / "1.png")


def test_streaming_is_refused_for_files(tmp_path):
    save(tmp_path / "1.png")
    text = message(tmp_path, streaming=True, image_size=8, channels=1)
    assert "data.streaming is for Parquet and data sets" in text


@pytest.fixture(params=["flat", "as given out"])
def celeba(tmp_path, request):
    """Seven images, of which one is not listed; one listed is missing."""
    flat = request.param == "flat"
    images = tmp_path if flat else tmp_path / "Img" / "img_align_celeba"
    for index in range(1, 8):
        save(images / f"{index:06d}.jpg", index * 30)
    rows = [
        "000001.jpg 0",
        "000002.jpg 0",
        "000003.jpg 1",
        "000004.jpg 2",
        "000005.jpg 0",
        "000006.jpg 2",
        "000009.jpg 0",
    ]
    partition = tmp_path / "list_eval_partition.txt" if flat else tmp_path / "Eval" / "list_eval_partition.txt"
    partition.parent.mkdir(exist_ok=True)
    partition.write_text("\n".join(rows) + "\n")
    return tmp_path


def test_celeba_has_its_official_splits(celeba):
    source = find(celeba)
    contents = source.load()
    assert names(contents, "train") == ["000001.jpg", "000002.jpg", "000005.jpg", "000009.jpg"]
    assert names(contents, "valid") == ["000003.jpg"]
    assert names(contents, "test") == ["000004.jpg", "000006.jpg"]
    assert [name.rpartition("/")[2] for name in source.other_files] == ["000007.jpg"]
    pictures = list(contents.splits["train"].start_at(0))
    assert np.asarray(pictures[2].open()).mean() == pytest.approx(150, abs=3)
    with pytest.raises(BadImage, match="is listed in list_eval_partition.txt, but is not below .*: unpack"):
        pictures[3].open()


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\n", "is empty; wanted a line"), (b"\xff\xfe 0 1", "line 1 is '\ufffd\ufffd 0 1'; wanted a file name")],
)
def test_a_partition_file_without_a_list_is_refused(tmp_path, content, expected):
    (tmp_path / "list_eval_partition.txt").write_bytes(content)
    assert expected in message(tmp_path)


def test_celeba_with_two_images_of_one_name_is_refused(celeba):
    save(celeba / "Img" / "img_celeba" / "000002.jpg")
    text = message(celeba)
    assert "holds 000002.jpg twice: " in text
    assert "img_celeba/000002.jpg; give a folder with list_eval_partition.txt and the images that are meant" in text


def test_empty_lines_of_a_partition_file_mean_nothing(tmp_path):
    save(tmp_path / "000001.jpg")
    (tmp_path / "list_eval_partition.txt").write_text("\n000001.jpg 0\r\n\n")
    assert names(load(tmp_path), "train") == ["000001.jpg"]


def test_a_broken_partition_file_is_named_by_line(tmp_path):
    save(tmp_path / "000001.jpg")
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 7\n")
    assert "list_eval_partition.txt, line 2 is '000002.jpg 7'; wanted a file name and 0, 1 or 2" in message(tmp_path)
