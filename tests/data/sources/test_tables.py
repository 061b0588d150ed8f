"""Parquet files and data sets of `datasets`, all from local files."""

import io

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.data import BadImage, ingest, load_splits
from fastddpm.data.sources import WHOLE, find_source

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 5, 3), dtype=np.uint8)
LABELS = [1, 0, 1, 1, 0, 2]
NAMES = ["ant", "bee", "cow"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def png(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def table(label=True, **more) -> datasets.Dataset:
    columns = {"image": [{"bytes": png(pixels), "path": None} for pixels in PIXELS], **more}
    features = datasets.Features({"image": datasets.Image(), **{name: datasets.Value("string") for name in more}})
    if label:
        columns["label"] = LABELS
        features["label"] = datasets.ClassLabel(names=NAMES)
    return datasets.Dataset.from_dict(columns, features=features)


def load(source, **options):
    return find_source(DataConfig(source=str(source), **options)).load()


def message(source, **options) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is what the caller looks at
        load(source, **options)
    return str(error.value)


STREAM = {"streaming": True, "image_size": 5, "channels": 3}


@pytest.mark.parametrize("options", [{}, STREAM], ids=["at hand", "streaming"])
@pytest.mark.parametrize("kind", ["file", "folder", "saved to disk", "saved with splits"])
def test_a_table_gives_images_labels_and_names(tmp_path, kind, options):
    place = tmp_path / "set"
    place.mkdir()
    if kind == "file":
        place = place / "images.parquet"
        table().to_parquet(place)
    elif kind == "folder":
        table().to_parquet(place / "train-00000-of-00001.parquet")
    elif kind == "saved to disk":
        table().save_to_disk(place)
    else:
        datasets.DatasetDict({"train": table()}).save_to_disk(place)
    contents = load(place, **options)
    assert list(contents.splits) == [WHOLE if kind == "saved to disk" else "train"]
    (pictures,) = contents.splits.values()
    found = list(pictures.start_at(0))
    np.testing.assert_array_equal([np.asarray(picture.open()) for picture in found], PIXELS)
    assert [picture.label for picture in found] == LABELS
    assert contents.label_names == tuple(NAMES)
    assert [p.name for p in pictures.start_at(4)] == [p.name for p in found[4:]]
    images = ingest(DataConfig(source=str(place), cache_dir=str(tmp_path / "cache"), **options), show_progress=False)
    np.testing.assert_array_equal(images.images, PIXELS.transpose(0, 3, 1, 2))
    assert images.labels.tolist() == LABELS


@pytest.mark.parametrize("options", [{}, STREAM], ids=["at hand", "streaming"])
def test_splits_are_named(tmp_path, options):
    for split, rows in (("train", range(4)), ("test", range(4, 6))):
        table().select(rows).to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    contents = load(tmp_path, **options)
    assert set(contents.splits) == {"train", "test"}
    assert [picture.label for picture in contents.splits["test"].start_at(0)] == LABELS[4:]


def test_a_parquet_file_of_plain_bytes_and_words(tmp_path):
    file = tmp_path / "plain.parquet"
    words = [NAMES[label] for label in LABELS]
    rows = pyarrow.table({"picture": [png(pixels) for pixels in PIXELS], "label": words, "caption": ["x"] * 6})
    pyarrow.parquet.write_table(rows, file)
    contents = load(file)
    found = list(contents.splits["train"].start_at(0))
    np.testing.assert_array_equal([np.asarray(picture.open()) for picture in found], PIXELS)
    assert [contents.label_names[picture.label] for picture in found] == words
    assert "in column 'label' are text" in message(file, **STREAM)


def test_columns_that_could_be_meant_are_listed(tmp_path):
    file = tmp_path / "two.parquet"
    both = (
        table()
        .add_column("mask", [{"bytes": png(p), "path": None} for p in PIXELS[::-1]])
        .cast_column("mask", datasets.Image())
    )
    both.to_parquet(file)
    assert "has 2 image columns, wanted one; say which with --data.image_column" in message(file)
    masks = load(file, image_column="mask").splits["train"]
    np.testing.assert_array_equal([np.asarray(p.open()) for p in masks.start_at(0)], PIXELS[::-1])
    assert "data.label_column is 'kind', but the columns of" in message(file, image_column="mask", label_column="kind")
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "none.parquet")
    assert "has 0 image columns" in message(tmp_path / "none.parquet")


def test_rows_without_a_whole_image_are_bad_images(tmp_path):
    file = tmp_path / "bad.parquet"
    whole = png(PIXELS[0])
    pyarrow.parquet.write_table(pyarrow.table({"image": [whole, None, b"", whole[:40]]}), file)
    found = list(load(file).splits["train"].start_at(0))
    with pytest.raises(BadImage, match="holds no image"):
        found[1].open()
    with pytest.raises((BadImage, OSError)):
        found[2].open()
    options = {"on_bad_file": "skip", "cache_dir": str(tmp_path / "cache")}
    images = ingest(DataConfig(source=str(file), **options), show_progress=False)
    assert len(images.images) == 1
    assert set(images.facts["bad_files"]) == {"train, row 1", "train, row 2", "train, row 3"}


@pytest.mark.parametrize("options", [{}, STREAM], ids=["at hand", "streaming"])
@pytest.mark.parametrize("kind", ["uint8", "int64", "bool", "string", "large_string"])
def test_labels_of_every_kind_are_taken(tmp_path, kind, options):
    if "string" in kind and options:
        return  # refused: see above
    values = {"bool": [True, False] * 3, "string": ["b", "a"] * 3, "large_string": ["b", "a"] * 3}
    column = pyarrow.array(values.get(kind, [1, 0] * 3), getattr(pyarrow, {"bool": "bool_"}.get(kind, kind))())
    rows = pyarrow.table({"image": [png(pixels) for pixels in PIXELS], "label": column})
    pyarrow.parquet.write_table(rows, tmp_path / "a.parquet")
    found = load(tmp_path / "a.parquet", **options).splits["train"].start_at(0)
    assert [picture.label for picture in found] == [1, 0] * 3


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["ant", None, "bee", "ant", "ant", "ant"], "has None; wanted words, or whole numbers from 0"),
        ([0, None, 1, 0, 0, 0], "has None; wanted words, or whole numbers from 0"),
        ([0, -1, 1, 0, 0, 0], "has -1"),
        ([0, 10**10, 1, 0, 0, 0], "has 10000000000"),
        ([f"a photo of {i}" for i in range(6)], "has another text for every image"),
    ],
)
@pytest.mark.parametrize("options", [{}, STREAM], ids=["at hand", "streaming"])
def test_labels_of_which_one_is_no_class_are_left_alone_and_told(tmp_path, values, reason, options, caplog):
    if options and isinstance(values[0], str):
        return  # refused: see above
    rows = pyarrow.table({"image": [png(pixels) for pixels in PIXELS], "label": values})
    pyarrow.parquet.write_table(rows, tmp_path / "a.parquet")
    place = {"source": str(tmp_path / "a.parquet"), "cache_dir": str(tmp_path / "cache")}
    images = ingest(DataConfig(**place, **options))
    assert (len(images.images), images.labels, images.label_names) == (6, None, None)
    assert ("1 of 6 images have none" if options else f"column 'label' {reason}") in caplog.text
    caplog.clear()
    images = ingest(DataConfig(**place, **options, label_column="none"))
    assert (len(images.images), images.labels, caplog.text) == (6, None, "")


def test_labels_of_a_split_that_is_not_read_do_not_matter(tmp_path):
    hidden = table().map(lambda row: {"label": -1})
    datasets.DatasetDict({"train": table(), "test": hidden}).save_to_disk(tmp_path / "set")
    options = {"source": str(tmp_path / "set"), "cache_dir": str(tmp_path / "cache")}
    images = ingest(DataConfig(**options), show_progress=False)
    assert images.labels.tolist() == LABELS
    assert images.facts["other_splits"] == ["test"]


def test_a_column_that_is_no_label_is_told(tmp_path):
    rows = pyarrow.table({"image": [png(pixels) for pixels in PIXELS], "label": [0.5] * 6})
    pyarrow.parquet.write_table(rows, tmp_path / "a.parquet")
    pictures = load(tmp_path / "a.parquet").splits["train"]
    assert {picture.label for picture in pictures.start_at(0)} == {None}
    assert pictures.no_labels == "column 'label' is float64; wanted whole numbers or text"
    assert "data.label_column: column 'label' is float64" in message(tmp_path / "a.parquet", label_column="label")


def test_images_beside_a_table_are_told(tmp_path):
    table().to_parquet(tmp_path / "train.parquet")
    (tmp_path / "1.png").write_bytes(png(PIXELS[0]))
    assert find_source(DataConfig(source=str(tmp_path))).other_files == ("1.png",)


def test_names_that_look_like_patterns(tmp_path):
    (tmp_path / "[1]").mkdir()
    file = tmp_path / "[1]" / "some [a] *.parquet"
    table().to_parquet(tmp_path / "plain.parquet")
    (tmp_path / "plain.parquet").rename(file)
    assert load(file).splits["train"].count == 6
    assert "takes * ? [ ] in a name for a pattern; rename the folder" in message(file.parent)


def test_a_cut_file_is_to_be_fetched_again(tmp_path):
    table().to_parquet(tmp_path / "a.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:100])
    text = message(tmp_path / "cut.parquet")
    assert "cut.parquet: `datasets` cannot load it (Parquet magic bytes not found" in text
    assert "; fetch it again, or give another source" in text


def test_copies_in_a_stream_count_once_towards_its_end(tmp_path):
    file = tmp_path / "images.parquet"
    rows = pyarrow.table({"image": [png(pixels) for pixels in PIXELS for _ in range(3)]})
    pyarrow.parquet.write_table(rows, file)
    options = {**STREAM, "num_images": 3, "num_held_out": 2, "cache_dir": str(tmp_path / "cache")}
    splits = load_splits(DataConfig(source=str(file), **options), seed=0, show_progress=False)
    assert (len(splits.train), len(splits.held_out)) == (3, 2)
    np.testing.assert_array_equal(splits.train.source.images, PIXELS[:5].transpose(0, 3, 1, 2))


def test_a_stream_ends_with_what_is_asked_for(tmp_path):
    file = tmp_path / "images.parquet"
    table().to_parquet(file)
    options = {**STREAM, "num_images": 2, "num_held_out": 1, "cache_dir": str(tmp_path / "cache")}
    images = ingest(DataConfig(source=str(file), **options), show_progress=False)
    np.testing.assert_array_equal(images.images, PIXELS[:3].transpose(0, 3, 1, 2))


def test_a_name_that_cannot_be_reached_says_what_was_wanted():
    text = message("nobody/no-such-images")
    assert "data.source nobody/no-such-images: there is no such file or folder here, and `datasets` cannot load" in text
    assert (
        'wanted "digits", a folder, .zip or .tar of images, a .csv list, an IDX, .npz, .npy or .parquet file, or'
        in text
    )
    assert "\n" not in text


@pytest.mark.parametrize("options", [{}, STREAM], ids=["at hand", "streaming"])
def test_what_rows_were_made_from_is_their_group(tmp_path, options):
    """As `augment` writes it: a list; a word of that name may mean anything."""
    made = [["a.png"], ["b.png", "a.png"], [], ["c.png"], ["d.png"], ["b.png"]]
    for name, sources, wanted in [
        ("ours", made, ['["a.png"]', '["b.png", "a.png"]', None, '["c.png"]', '["d.png"]', '["b.png"]']),
        ("other", ["web"] * 6, [None] * 6),
    ]:
        file = tmp_path / f"{name}.parquet"
        rows = {"image": [png(pixels) for pixels in PIXELS], "sources": sources}
        pyarrow.parquet.write_table(pyarrow.table(rows), file)
        found = load(file, **options).splits["train"].start_at(0)
        assert [picture.group for picture in found] == wanted
        asked = load(file, group="sources", **options).splits["train"].start_at(0)
        assert next(asked).group == f"={sources[0]}"
