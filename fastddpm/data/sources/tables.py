"""Images in tables: Parquet files, and whatever the library `datasets` loads, from a folder here or by name."""

import glob
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_CACHE
from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.config.early_checks import check_installed
from fastddpm.config.on_hub import check_on_hub
from fastddpm.data.opening import BadImage, is_image, open_bytes, open_file
from fastddpm.data.sources.base import COLUMN, KINDS, WHOLE, Contents, Picture, Pictures, Source
from fastddpm.data.sources.classes import NO_COLUMN, Classes, classes_of
from fastddpm.data.sources.folders import is_below, open_inside, relative, walk
from fastddpm.data.sources.rows import OUTSIDE
from fastddpm.data.store import stamps_of

_TEXT_KINDS = ("string", "large_string")
_LABEL_KINDS = ("int", "uint", "bool", *_TEXT_KINDS)


def find_table(place: str | Path, config: DataConfig) -> Source:
    """A data set for the library `datasets`: a Parquet file, a folder, or a name on the Hub.

    Raises: ValueError: the library is missing.
    """
    is_here = "" if isinstance(place, Path) else ", which is no file or folder here, is a name on the Hub, and that"
    check_installed(f"data.source {config.source}{is_here}", "datasets", "tables")
    folders, files = ([], []) if isinstance(place, str) else ([], [place]) if place.is_file() else walk(place)
    others = tuple(relative(file, Path(place)) for file in files if is_image(file.name))
    stamps = stamps_of(files, folders)
    takes = ("streaming", "subset", "image_column", "label_column")
    return Source(partial(_load, place, config), stamps, others, takes)


def _load(place: str | Path, config: DataConfig) -> Contents:
    """Read the heads and the labels; the images stay where they are until they are wanted."""
    tables = _open(place, config)
    columns = _Columns.of(next(iter(tables.values())).features, config)
    names = columns.label_names
    if columns.label is not None and columns.labels_are_text:
        if config.streaming:
            raise ValueError(
                f"the labels of {config.source} in column {columns.label!r} are text, whose classes are known only at "
                f"the end of a stream; use --data.streaming false, or --data.label_column {NO_COLUMN}"
            )
        found = {name for table in tables.values() for name in table.unique(columns.label)}
        names = tuple(sorted(found - {None}))
    root = None if isinstance(place, str) else place if place.is_dir() else place.parent
    read = partial(_streamed if config.streaming else _at_hand, names=names, columns=columns, root=root)
    return Contents({split: read(table, split) for split, table in tables.items()}, names)


def _open(place: str | Path, config: DataConfig) -> Mapping[str, Any]:
    import datasets  # takes a second: only when a table is read in

    if isinstance(place, Path) and place.is_dir() and glob.has_magic(str(place)):
        raise ValueError(f"data.source {place}: `datasets` takes * ? [ ] in a name for a pattern; rename the folder")
    is_here = isinstance(place, Path)
    missing = "" if is_here else "there is no such file or folder here, and "
    way_out = "fetch it again, or give another source" if is_here else f"wanted {KINDS}"
    try:
        if isinstance(place, Path) and place.is_file():
            found = datasets.load_dataset("parquet", data_files=glob.escape(str(place)), streaming=config.streaming)
        elif isinstance(place, Path) and any((place / name).is_file() for name in SAVED_TO_DISK):
            found = datasets.load_from_disk(str(place))
            tables = found if isinstance(found, dict) else {WHOLE: found}
            found = {k: t.to_iterable_dataset() if config.streaming else t for k, t in tables.items()}
        else:
            if not is_here:
                check_on_hub(str(place), "dataset")
            found = datasets.load_dataset(str(place), config.subset, streaming=config.streaming)
    except Exception as error:  # readers of many formats: each has errors of its own
        reason = (str(error) or repr(error)).splitlines()[0]
        if "OfflineModeIsEnabled" in reason:
            reason = "HF_HUB_OFFLINE is set, and nothing of it was loaded before"
        raise ValueError(
            f"data.source {config.source}: {missing}`datasets` cannot load it ({reason}); {way_out}"
        ) from error
    return found


SAVED_TO_DISK = ("dataset_dict.json", "state.json")
"""files that `save_to_disk` writes"""


@dataclass(frozen=True)
class _Columns:
    """Columns of a table and their parts."""

    image: str
    label: str | None
    label_names: tuple[str, ...] | None
    labels_are_text: bool
    is_asked: bool
    """`label` is the column that was asked for"""
    no_labels: str | None
    """reason that a column of that name is left alone"""
    group: str | None = None
    """column of the groups, `data.group` or what our own tables have"""
    group_is_asked: bool = False

    @classmethod
    def of(cls, features: Mapping[str, Any] | None, config: DataConfig) -> "_Columns":
        """Columns of the images and of their labels and groups."""
        is_asked = config.group in (features or ())
        is_ours = hasattr((features or {}).get("sources"), "feature")  # a list, as `augment` writes
        group = config.group if is_asked else "sources" if is_ours else None
        return replace(cls._of_labels(features, config), group=group, group_is_asked=is_asked)

    @classmethod
    def _of_labels(cls, features: Mapping[str, Any] | None, config: DataConfig) -> "_Columns":
        import datasets

        if features is None:
            raise ValueError(f"{config.source} does not say what its columns are; use --data.streaming false")
        images = [name for name, kind in features.items() if isinstance(kind, datasets.Image) or _holds_bytes(kind)]
        image = _chosen(config.image_column, images, features, "image", config.source)
        assert image is not None
        classes = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
        by_name = [name for name in ("label", "labels") if name in features and name != image]
        classes = classes or [name for name in by_name if _is_value(features[name], _LABEL_KINDS)]
        goes_without = config.label_column == NO_COLUMN and NO_COLUMN not in features
        label = None if goes_without else _chosen(config.label_column, classes, features, "label", config.source)
        likely = label or next(iter(by_name), None)
        kind = None if likely is None else features[likely]
        why = f"column {likely!r} is {getattr(kind, 'dtype', kind)}; wanted whole numbers or text"
        if label is None:
            return cls(image, None, None, False, False, why if by_name and not goes_without else None)
        if isinstance(kind, datasets.ClassLabel):
            return cls(image, label, tuple(kind.names), False, config.label_column is not None, None)
        if not _is_value(kind, _LABEL_KINDS):
            raise ValueError(f"data.label_column: {why} (or --data.label_column {NO_COLUMN})")
        return cls(image, label, None, _is_value(kind, _TEXT_KINDS), config.label_column is not None, None)

    def group_of(self, value: Any) -> str | None:
        """Group that the value of a row stands for."""
        if self.group_is_asked:
            return f"{COLUMN}{value}"
        return json.dumps(value, default=str) if value else None

    def classes(self, table: Any, names: tuple[str, ...] | None) -> Classes:
        """Classes of a split that is at hand."""
        if self.label is None:
            return Classes(why_none=self.no_labels)
        count = 0 if self.is_asked else len(table)
        return classes_of(table.unique(self.label), f"column {self.label!r}", count=count, names=names)


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

    kept = [name for name in dict.fromkeys((columns.image, columns.label, columns.group)) if name is not None]
    return table.select_columns(kept).cast_column(columns.image, datasets.Image(decode=False))


def _at_hand(table: Any, split: str, columns: _Columns, names: tuple[str, ...] | None, root: Path | None) -> Pictures:
    rows, classes = _as_stored(table, columns), columns.classes(table, names)

    def start_at(first: int) -> Iterator[Picture]:
        labels, groups = (
            [None] * len(rows) if column is None else list(rows[column]) for column in (columns.label, columns.group)
        )
        for index in range(first, len(rows)):
            image = partial(_open_at, rows, index, columns.image, root)
            label, group = classes.number_of(labels[index]), columns.group_of(groups[index])
            yield Picture(f"{split}, row {index}", image, label, group=group)

    return Pictures(start_at, len(rows), no_labels=classes.why_none)


def _streamed(table: Any, split: str, columns: _Columns, names: tuple[str, ...] | None, root: Path | None) -> Pictures:
    rows, number_of = _as_stored(table, columns), classes_of((), "", count=0, names=names).number_of

    def start_at(first: int) -> Iterator[Picture]:
        for index, row in enumerate(rows.skip(first) if first else rows, start=first):
            label = None if columns.label is None else number_of(row[columns.label])
            group = columns.group_of(None if columns.group is None else row[columns.group])
            yield Picture(f"{split}, row {index}", partial(_open_row, row[columns.image], root), label, group=group)

    return Pictures(start_at, no_labels=columns.no_labels)


def _open_at(rows: Any, index: int, column: str, root: Path | None) -> Image.Image:
    return _open_row(rows[index][column], root)


def _open_row(value: Any, root: Path | None) -> Image.Image:
    """Open the picture of a row; one that it names lies in the folder of the data set, or in what was loaded."""
    if value is None:
        raise BadImage("holds no image")
    if value.get("bytes"):
        return open_bytes(value["bytes"], value.get("path") or "")
    if not value.get("path"):
        raise BadImage("is empty (0 bytes)")
    if root is not None:
        return open_inside(root, value["path"])
    import datasets

    caches = (datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE)
    if not any(is_below(Path(value["path"]), Path(cache)) for cache in caches):
        raise BadImage(f"is named {value['path']!r}, {OUTSIDE}")
    return open_file(Path(value["path"]))
