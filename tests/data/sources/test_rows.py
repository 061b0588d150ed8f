"""Labels beside pictures: lists as `datasets` reads them, a file beside each, lists as sources; what is no class."""

import csv
import json

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.data import ingest
from fastddpm.data.opening import BadImage
from fastddpm.data.sources import WHOLE, find_source
from fastddpm.data.sources.tables import _open_row
from fastddpm.verbs.augment.result import save_class_folders
from fastddpm.verbs.sample import formats
from tests.data.sources.test_folders import packed


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((3, 3), value, dtype=np.uint8)).save(path)


def write(path, rows):
    """A list, by its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)


def find(source, **options):
    return find_source(DataConfig(source=str(source), **options))


def labels(source, split=WHOLE, **options):
    """Names and class names of a source's pictures."""
    contents = find(source, **options).load()
    names = contents.label_names or [str(number) for number in range(99)]
    pictures = contents.splits[split].start_at(0)
    return {picture.name: None if picture.label is None else names[picture.label] for picture in pictures}


def why_none(source, split=WHOLE, **options):
    contents = find(source, **options).load()
    assert {picture.label for picture in contents.splits[split].start_at(0)} == {None}
    return contents.splits[split].no_labels


def message(source, **options) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is what the caller looks at
        labels(source, **options)
    return str(error.value)


ROWS = [{"file_name": f"{i}.png", "label": ["dark", "light"][i % 2]} for i in range(4)]


def four(folder):
    for i in range(4):
        save(folder / f"{i}.png", 60 * i)
    return folder


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("is_zip", [False, True], ids=["folder", "zip"])
def test_words_beside_pictures_are_classes(tmp_path, ending, is_zip):
    write(four(tmp_path / "in") / f"metadata.{ending}", ROWS[::-1])
    source = packed(tmp_path / "in", tmp_path / "in.zip") if is_zip else tmp_path / "in"
    assert labels(source) == {"0.png": "dark", "1.png": "light", "2.png": "dark", "3.png": "light"}
    assert find(source).other_files == ()
    contents = find(source).load()
    assert [np.asarray(picture.open()).max() for picture in contents.splits[WHOLE].start_at(0)] == [0, 60, 120, 180]
    assert set(labels(source, label_column="none").values()) == {None}


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_labels_are_those_that_datasets_reads(tmp_path, ending):
    rows = [{"file_name": f"{i}.png", "label": [3, 0][i % 2], "label_name": ["d", "a"][i % 2]} for i in range(4)]
    write(four(tmp_path / "in" / "train") / f"metadata.{ending}", rows)
    theirs = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "in"), cache_dir=str(tmp_path / "hf"))
    contents = find(tmp_path / "in").load()
    assert list(contents.splits) == list(theirs) == ["train"]
    assert [picture.label for picture in contents.splits["train"].start_at(0)] == list(theirs["train"]["label"])
    assert contents.label_names == ("a", "1", "2", "d")


def test_each_folder_may_have_a_list_of_its_own(tmp_path):
    for split in ("train", "test"):
        write(four(tmp_path / split / "deep") / "metadata.csv", ROWS)
    assert labels(tmp_path, "test")["test/deep/1.png"] == "light"
    assert set(labels(tmp_path, "train")) == {f"train/deep/{i}.png" for i in range(4)}


def test_rows_go_before_folders_and_pictures_without_a_row_are_told(tmp_path):
    for name in ("x/0.png", "y/1.png", "y/2.png"):
        save(tmp_path / name)
    write(tmp_path / "metadata.csv", [{"file_name": "x/0.png", "label": 1}, {"file_name": "./y\\1.png", "label": 0}])
    assert labels(tmp_path) == {"x/0.png": "1", "y/1.png": "0"}
    assert find(tmp_path).other_files == ("y/2.png",)
    assert labels(tmp_path, label_column="none") == {"x/0.png": None, "y/1.png": None, "y/2.png": None}


def test_rows_without_classes_leave_those_of_the_folders(tmp_path):
    for name in ("x/0.png", "y/1.png"):
        save(tmp_path / name)
    write(tmp_path / "metadata.csv", [{"file_name": "x/0.png", "caption": "a cat on a mat"}])
    assert labels(tmp_path) == {"x/0.png": "x", "y/1.png": "y"}


def test_a_row_whose_picture_is_not_there_is_a_bad_file(tmp_path):
    write(four(tmp_path / "in") / "metadata.csv", [*ROWS, {"file_name": "9.png", "label": "dark"}])
    with pytest.raises(ValueError, match=r"1 bad file in .*\n  9.png is not there"):
        ingest(DataConfig(source=str(tmp_path / "in"), cache_dir=str(tmp_path / "cache")), show_progress=False)


@pytest.mark.parametrize("name", ["\0.png", "\ud800.png", "x" * 300 + ".png"])
def test_a_name_that_no_file_has_is_a_bad_file(tmp_path, name):
    write(four(tmp_path / "in") / "metadata.jsonl", [*ROWS, {"file_name": name, "label": "dark"}])
    with pytest.raises(ValueError, match="1 bad file in "):
        ingest(DataConfig(source=str(tmp_path / "in"), cache_dir=str(tmp_path / "cache")), show_progress=False)


def test_a_changed_list_is_read_again(tmp_path):
    config = DataConfig(source=str(tmp_path / "in"), cache_dir=str(tmp_path / "cache"))
    write(four(tmp_path / "in") / "metadata.jsonl", ROWS)
    assert ingest(config, show_progress=False).label_names == ("dark", "light")
    listed = tmp_path / "in" / "metadata.jsonl"
    listed.write_text(listed.read_text().replace("dark", "dim"))
    assert ingest(config, show_progress=False).label_names == ("dim", "light")


LEADING_OUT = ["../secret.png", "{root}/secret.png", "sub/../../secret.png", "..\\secret.png"]


@pytest.mark.parametrize("name", LEADING_OUT)
@pytest.mark.parametrize("list_name", ["metadata.jsonl", "metadata.csv", "metadata.parquet", "list.csv"])
def test_a_row_that_leads_out_of_its_folder_is_refused(tmp_path, name, list_name):
    save(tmp_path / "secret.png")
    rows = [*ROWS, {"file_name": name.format(root=tmp_path), "label": "dark"}]
    write(four(tmp_path / "in") / list_name, rows)
    source = tmp_path / "in" / list_name if list_name == "list.csv" else tmp_path / "in"
    assert f"{list_name} names {name.format(root=tmp_path)!r}, which leads out of its folder" in message(source)


@pytest.mark.parametrize("list_name", ["metadata.jsonl", "list.csv"])
def test_a_link_that_leads_out_is_not_followed_for_a_row(tmp_path, list_name):
    save(tmp_path / "secret.png")
    write(four(tmp_path / "in") / list_name, [*ROWS, {"file_name": "link.png", "label": "dark"}])
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    pictures = find(tmp_path / "linked" / list_name if list_name == "list.csv" else tmp_path / "linked").load()
    *good, bad = list(pictures.splits[WHOLE].start_at(0))
    assert [picture.open().size for picture in good] == [(3, 3)] * 4
    with pytest.raises(BadImage, match="is named 'link.png', which leads out of its folder"):
        bad.open()


def test_a_row_of_the_hub_reads_what_was_downloaded_only(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    save(tmp_path / "hf" / "own.png", 7)
    assert np.asarray(_open_row({"path": str(tmp_path / "hf" / "own.png")}, None)).max() == 7
    save(tmp_path / "secret.png")
    for path in ("hf/../secret.png", "secret.png"):
        with pytest.raises(BadImage, match="which leads out of its folder"):
            _open_row({"path": str(tmp_path / path)}, None)


def test_a_parquet_row_reads_a_path_in_its_own_folder_only(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    save(tmp_path / "secret.png")
    save(tmp_path / "in" / "own.png", 7)
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    paths = ["own.png", str(tmp_path / "secret.png"), "../secret.png", "link.png"]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    rows = pyarrow.table({"image": pyarrow.array([{"bytes": None, "path": path} for path in paths], kind)})
    pyarrow.parquet.write_table(rows, tmp_path / "in" / "a.parquet")
    pictures = find(tmp_path / "in" / "a.parquet").load().splits["train"]
    first, *others = list(pictures.start_at(0))
    assert np.asarray(first.open()).max() == 7
    for picture in others:
        with pytest.raises(BadImage, match="which leads out of its folder"):
            picture.open()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5, 1.5, 0.5, 1.5], "column 'label' of metadata.jsonl has 0.5; wanted words, or whole numbers from 0"),
        ([0, -1, 0, 1], "has -1"),
        ([0, None, 0, 1], "has None"),
        (["a", None, "b", "a"], "has None"),
        (["w", "x", "y", "z"], "has another text for every image"),
        ([[0, 1]] * 4, "has [0, 1]"),
        ([{"a": 1}] * 4, "has {'a': 1}"),
        ([0, 10**9, 0, 1], "has 1000000000"),
    ],
)
def test_what_is_no_class_is_left_alone_and_told(tmp_path, values, expected, caplog):
    folder = four(tmp_path / "in")
    rows = [{**row, "label": value, "label_name": "x"} for row, value in zip(ROWS, values, strict=True)]
    write(folder / "metadata.jsonl", rows)
    assert expected in why_none(folder)
    for _ in range(2):  # read in, and mapped
        caplog.clear()
        images = ingest(DataConfig(source=str(folder), cache_dir=str(tmp_path / "cache")))
        assert (len(images.images), images.labels, images.label_names) == (4, None, None)
        assert expected in caplog.text


def test_columns_that_may_hold_classes_are_named(tmp_path):
    folder = four(tmp_path / "in")
    write(folder / "metadata.csv", [{"file_name": row["file_name"], "kind": row["label"], "id": 0} for row in ROWS])
    assert why_none(folder) == (
        "metadata.csv has the columns kind, id; say which holds classes with --data.label_column"
    )
    assert labels(folder, label_column="kind")["1.png"] == "light"
    assert "data.label_column is 'sort', but the columns of metadata.csv are kind, id" in message(
        folder, label_column="sort"
    )


def test_a_picture_with_two_labels_has_none(tmp_path):
    folder = four(tmp_path / "in")
    write(folder / "metadata.csv", [*ROWS, {"file_name": "0.png", "label": "light"}])
    assert why_none(folder) == "metadata.csv has several rows of a picture, with other labels"


@pytest.mark.parametrize("content", [b"{", b"[1]\n", b"[" * 99_999, b'{"file_name": "\xff"}'])
def test_a_list_that_cannot_be_read_is_named(tmp_path, content):
    (four(tmp_path / "in") / "metadata.jsonl").write_bytes(content)
    assert "metadata.jsonl cannot be read (" in message(tmp_path / "in")
    assert set(labels(tmp_path / "in", label_column="none").values()) == {None}


def test_a_list_that_cannot_be_unpacked_is_named(tmp_path):
    write(four(tmp_path / "in") / "metadata.csv", ROWS)
    content = packed(tmp_path / "in", tmp_path / "in.zip").read_bytes()
    (tmp_path / "in.zip").write_bytes(content.replace(b"file_name", b"file_nome"))
    assert f"{tmp_path / 'in.zip'}: metadata.csv cannot be unpacked (Bad CRC-32" in message(tmp_path / "in.zip")


@pytest.mark.parametrize("text", ["\ufefffile_name;label\r\n0.png;x\r\n1.png;y\r\n2.png;x\r\n3.png;y\r\n"])
def test_a_list_of_a_spreadsheet_is_read(tmp_path, text):
    (four(tmp_path / "in") / "metadata.csv").write_text(text, encoding="utf-8", newline="")
    assert list(labels(tmp_path / "in").values()) == ["x", "y"] * 2


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_a_list_is_a_source_in_its_own_order(tmp_path, ending):
    four(tmp_path / "in" / "deep")
    rows = [{"kind": kind, "image": f"deep/{i}.png"} for kind, i in (("b", 3), ("a", 1), ("b", 2))]
    write(tmp_path / "in" / f"list.{ending}", rows)
    found = labels(tmp_path / "in" / f"list.{ending}", label_column="kind")
    assert list(found.items()) == [("deep/3.png", "b"), ("deep/1.png", "a"), ("deep/2.png", "b")]


@pytest.mark.parametrize("values", [[0, 1, 0, 1], ["v1", "v2", "v1", "v2"]])
def test_numbers_of_a_csv_are_classes_by_number_unless_written_otherwise(tmp_path, values):
    folder = four(tmp_path / "in")
    write(folder / "metadata.csv", [{**row, "label": value} for row, value in zip(ROWS, values, strict=True)])
    assert labels(folder)["1.png"] == str(values[1])


def test_a_table_of_pixels_is_told_from_a_list(tmp_path):
    write(tmp_path / "pixels.csv", [{"label": 1, "p0": 3, "p1": 4}])
    text = message(tmp_path / "pixels.csv")
    assert "has no paths of pictures: its columns are label, p0, p1; wanted a first line such as" in text


def test_a_file_beside_each_picture_may_hold_its_class(tmp_path):
    folder = four(tmp_path / "in")
    for i in range(4):
        (folder / f"{i}.json").write_text(json.dumps({"label": ["dark", "light"][i % 2], "size": 3}))
    (folder / "notes.json").write_text("{}")
    assert list(labels(folder).values()) == ["dark", "light"] * 2
    assert find(folder).other_files == ("notes.json",)


@pytest.mark.parametrize("content", ["[1, 2]", "{", '{"shapes": [{"label": "dark"}]}'])
def test_another_programs_file_beside_a_picture_bars_nothing(tmp_path, content):
    (four(tmp_path / "in") / "0.json").write_text(content)
    assert set(labels(tmp_path / "in").values()) == {None}


def made(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
    named = [(i % 3, "abc"[i % 3]) for i in range(count)]
    rows = [
        {"file_name": f"{name}/{i:06d}.png", "label": label, "label_name": name, "sources": [f"{i // 2}.png"]}
        for i, (label, name) in enumerate(named)
    ]
    return images, rows


@pytest.mark.parametrize("kind", ["samples", "augmented"])
def test_our_own_folders_come_back_with_labels_names_bytes_and_groups(tmp_path, kind):
    images, rows = made(7)
    folder = tmp_path / "own"
    if kind == "augmented":
        save_class_folders(folder, iter([formats.Batch(images, rows)]), {})
    else:
        folder.mkdir()
        rows = [{**row, "file_name": row["file_name"][2:]} for row in rows]
        formats.save_pngs(folder, formats.Batch(images, rows))
        formats.save_metadata(folder, rows)
    source = find(folder)
    contents = source.load()
    assert (source.other_files, contents.label_names) == ((), ("a", "b", "c"))
    by_name = {row["file_name"]: (row, image) for row, image in zip(rows, images, strict=True)}
    for picture in contents.splits[WHOLE].start_at(0):
        row, image = by_name.pop(picture.name)
        assert (picture.label, picture.group) == (row["label"], json.dumps(row["sources"]))
        np.testing.assert_array_equal(np.asarray(picture.open()), image[0])
    assert not by_name


def test_samples_without_classes_are_no_labelled_set(tmp_path):
    folder = four(tmp_path / "in")
    write(folder / "metadata.jsonl", [{"file_name": f"{i}.png", "seed": i, "label": None} for i in range(4)])
    assert why_none(folder) is None
