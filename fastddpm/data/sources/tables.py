"""Images in tables: Parquet files, and whatever the library `datasets` loads, from a folder here or by name."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.data.decode import BadImage
from fastddpm.data.sources.base import WHOLE, Contents, Picture, Pictures, Source, indexed
from fastddpm.data.sources.files import open_file, walk
from fastddpm.data.stamps import stamps_of


def find_table(place: str | Path, config: DataConfig) -> Source:
    """A data set for the library `datasets`: a Parquet file, a folder, or a name on the Hub."""
    folders, files = ([], []) if isinstance(place, str) else ([], [place]) if place.is_file() else walk(place)
    return Source(partial(_load, place, config), stamps_of(files, folders), can_be_read_twice=not config.streaming)


def _load(place: str | Path, config: DataConfig) -> Contents:
    """Read the heads and the labels; the images stay where they are until they are wanted."""
    tables = _open(place, config)
    columns = _Columns.of(next(iter(tables.values())).features, config)
    names = columns.label_names
    if columns.label is not None and columns.labels_are_text:
        if config.streaming:
            raise ValueError(
                f"the labels of {config.source} in column {columns.label!r} are text, whose classes are known only at "
                f"the end of a stream; use --data.streaming false"
            )
        names = tuple(sorted({str(name) for table in tables.values() for name in table.unique(columns.label)}))
    read = _streamed if config.streaming else _at_hand
    return Contents({split: read(table, split, columns, names) for split, table in tables.items()}, names)


def _open(place: str | Path, config: DataConfig) -> Mapping[str, Any]:
    import datasets  # takes a second: only when a table is read in

    try:
        if isinstance(place, Path) and place.is_file():
            found = datasets.load_dataset("parquet", data_files=str(place), streaming=config.streaming)
        elif isinstance(place, Path) and any((place / name).is_file() for name in SAVED_TO_DISK):
            found = datasets.load_from_disk(str(place))
            tables = found if isinstance(found, dict) else {WHOLE: found}
            found = {k: t.to_iterable_dataset() if config.streaming else t for k, t in tables.items()}
        else:
            found = datasets.load_dataset(str(place), config.subset, streaming=config.streaming)
    except Exception as error:  # readers of many formats: each has errors of its own
        raise ValueError(
            f"data.source {config.source}: `datasets` cannot load it ({str(error).splitlines()[0]}); wanted a folder, "
            f"zip or file of images here, or the name of a data set that can be reached"
        ) from error
    return found


SAVED_TO_DISK = ("dataset_dict.json", "state.json")
"""files that `save_to_disk` writes"""


@dataclass(frozen=True)
class _Columns:
    """Which columns hold what."""

    image: str
    label: str | None
    label_names: tuple[str, ...] | None
    labels_are_text: bool

    @classmethod
    def of(cls, features: Mapping[str, Any] | None, config: DataConfig) -> "_Columns":
        import datasets

        if features is None:
            raise ValueError(f"{config.source} does not say what its columns are; use --data.streaming false")
        images = [name for name, kind in features.items() if isinstance(kind, datasets.Image) or _holds_bytes(kind)]
        image = _chosen(config.image_column, images, features, "image", config.source)
        assert image is not None
        classes = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
        classes = classes or [name for name in ("label", "labels") if _is_value(features.get(name), ("int", "string"))]
        label = _chosen(config.label_column, classes, features, "label", config.source)
        kind = None if label is None else features[label]
        names = tuple(kind.names) if isinstance(kind, datasets.ClassLabel) else None
        return cls(image, label, names, _is_value(kind, ("string", "large_string")))


def _holds_bytes(kind: Any) -> bool:
    fields = kind if isinstance(kind, dict) else {}
    return _is_value(kind, ("binary", "large_binary")) or _is_value(fields.get("bytes"), ("binary", "large_binary"))


def _is_value(kind: Any, prefixes: tuple[str, ...]) -> bool:
    return str(getattr(kind, "dtype", "")).startswith(prefixes)


def _chosen(asked: str | None, found: list[str], features: Mapping[str, Any], what: str, source: str) -> str | None:
    if asked is not None and asked not in features:
        raise ValueError(f"data.{what}_column is {asked!r}, but the columns of {source} are {', '.join(features)}")
    if asked is None and (len(found) > 1 or (what == "image" and not found)):
        kinds = ", ".join(f"{name} ({getattr(kind, 'dtype', kind)})" for name, kind in features.items())
        raise ValueError(
            f"{source} has {len(found)} {what} columns, wanted one; say which with --data.{what}_column: {kinds}"
        )
    return asked or (found[0] if found else None)


def _as_stored(table: Any, columns: _Columns) -> Any:
    """The table with images as they are in the file: decoding, and its errors, are ours."""
    import datasets

    kept = [columns.image] + ([columns.label] if columns.label is not None else [])
    return table.select_columns(kept).cast_column(columns.image, datasets.Image(decode=False))


def _at_hand(table: Any, split: str, columns: _Columns, names: tuple[str, ...] | None) -> Pictures:
    labels = None if columns.label is None else [_number(v, columns, names) for v in table[columns.label]]
    rows = _as_stored(table, columns)
    titles = [f"{split}, row {index}" for index in range(len(rows))]
    return indexed(titles, lambda index: _open_row(rows[index][columns.image]), labels)


def _streamed(table: Any, split: str, columns: _Columns, names: tuple[str, ...] | None) -> Pictures:
    rows = _as_stored(table, columns)

    def start_at(first: int) -> Iterator[Picture]:
        for index, row in enumerate(rows.skip(first) if first else rows, start=first):
            label = None if columns.label is None else _number(row[columns.label], columns, names)
            yield Picture(f"{split}, row {index}", partial(_open_row, row[columns.image]), label)

    return Pictures(start_at)


def _number(value: Any, columns: _Columns, names: tuple[str, ...] | None) -> int:
    if columns.labels_are_text and names is not None:
        return names.index(str(value))
    if value is None or isinstance(value, bool | float) or int(value) < 0:
        raise ValueError(f"column {columns.label!r} holds {value!r}; wanted whole numbers, 0 or more, or names")
    return int(value)


def _open_row(value: Any) -> Image.Image:
    if value is None:
        raise BadImage("holds no image")
    if value.get("bytes"):
        return Image.open(io.BytesIO(value["bytes"]))
    if value.get("path"):
        return open_file(Path(value["path"]))
    raise BadImage("is empty (0 bytes)")
