"""Rows that name pictures, in lists (metadata.jsonl, .csv or .parquet, as `datasets` reads them beside pictures) or
each in a file of its own (.cls, .json, as WebDataset has them), and what they say.

A row names pictures in its own folder and below only: what a stranger's list says is not followed elsewhere.
"""

import csv
import io
import json
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from PIL import Image

from fastddpm.config.early_checks import check_installed
from fastddpm.data.sources.base import Contents, Picture, Source, printable
from fastddpm.data.sources.classes import NO_CLASSES, NO_COLUMN, Classes, changed, classes_of
from fastddpm.data.sources.layouts import arranged
from fastddpm.data.sources.pages import with_pages
from fastddpm.data.stacks import ENDINGS

_SIDES = (".cls", ".json")
_LISTS = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_LABELS = ("label", "labels", "cls", "class", "label_name")
"""columns that hold classes, if none is asked for: the first that is there"""
_NOT_LABELS = ("label_name", "sources", "variation_of")
"""other columns that are read"""
OUTSIDE = "which leads out of its folder; a row may name pictures in that folder and below"
Row = dict[Any, Any]


@dataclass(frozen=True)
class Told:
    """Pictures by their paths, with slashes, and what rows say of them."""

    names: Sequence[str]
    read: Sequence[str] = ()
    """paths of the files with rows"""
    rows: Mapping[str, Row] = field(default_factory=dict)
    """by the path of the picture"""
    column: str | None = None
    """column of the classes; None: the rows give none"""
    classes: Classes = NO_CLASSES

    def source(self, names: Iterable[str], open_named: Callable[[str], Image.Image], stamps: dict[str, Any]) -> Source:
        """Splits by folders, with the labels of rows, or else of folders.

        Args:
            names: all files, of which those that are neither pictures nor read are told.
            open_named: opens the picture of a path.
            stamps: see `data.store`.
        """
        used = {*self.names, *self.read}
        others = tuple(printable(name) for name in names if name not in used)
        takes = ("layout", "label_column") if self.read else ("layout",)
        return Source(partial(self._load, open_named), stamps, others, takes)

    def _load(self, open_named: Callable[[str], Image.Image], layout: str | None = None) -> Contents:
        found = arranged(self.names, lambda index: open_named(self.names[index]), layout)
        rows = {printable(path): row for path, row in self.rows.items()}

        def told(picture: Picture) -> Picture:
            row = rows.get(picture.name, {})
            label = self.classes.number_of(row.get(self.column)) if self.column else picture.label
            made_from = row.get("sources") or row.get("variation_of")
            return replace(picture, label=label, group=json.dumps(made_from, default=str) if made_from else None)

        names = self.classes.names if self.column else found.label_names
        has_labels = self.column is not None or names is not None
        found = changed(found, told, names, None if has_labels else self.classes.why_none) if rows else found
        return with_pages(found) if any(name.lower().endswith(ENDINGS) for name in self.names) else found


def told_beside(names: Sequence[str], others: Sequence[str], read: Callable[[str], bytes], asked: str | None) -> Told:
    """Read the lists among pictures, or else what lies beside each of them.

    Args:
        names, others: paths of the pictures and of the other files.
        asked: `data.label_column`; `NO_COLUMN`: nothing is read.
    Returns: the pictures that have a row, if a list gives labels, else all.
    Raises: ValueError: what cannot be read, or names pictures elsewhere; and what `told_by` raises.
    """
    if asked == NO_COLUMN:
        return Told(names)
    lists = [name for name in others if posixpath.basename(name) in _LISTS]
    found = [pair for name in lists for pair in read_list(name, read(name), "file_name")]
    if lists:
        told = told_by(names, found, lists, asked)
        return replace(told, names=sorted(told.rows)) if told.column else told
    stem_of = {name: posixpath.splitext(name)[0] for name in names}
    kept, rows = {*_LABELS, *_NOT_LABELS, asked}, {stem: Row() for stem in stem_of.values()}
    beside = {name: posixpath.splitext(name) for name in others}
    sides = {name: (stem, ending) for name, (stem, ending) in beside.items() if stem in rows and ending in _SIDES}
    for name, (stem, ending) in sides.items():
        with suppress(ValueError, TypeError, RecursionError):  # of another program
            row = {"cls": read(name).decode().strip()} if ending == ".cls" else dict(json.loads(read(name)))
            rows[stem] |= {column: value if column in kept else None for column, value in row.items()}
    with_cls = [row for row in rows.values() if "cls" in row]
    for row, label in zip(with_cls, _typed([row["cls"] for row in with_cls]), strict=True):
        row["cls"] = label
    return told_by(names, [(name, rows[stem]) for name, stem in stem_of.items() if sides], list(sides), asked)


def told_by(names: Sequence[str], found: Sequence[tuple[str, Row]], read: Sequence[str], asked: str | None) -> Told:
    """Find out what rows, each with the path of its picture, say; `read` and `asked` as above.

    Raises: ValueError: a column of labels that is asked for and is not there.
    """
    rows, columns = dict(found), list(dict.fromkeys(name for _, row in found for name in row if name != "file_name"))
    if not read or asked == NO_COLUMN:
        return Told(names, read, rows)
    where, some = printable(read[0]) + " and others" * (len(read) > 1), ", ".join(columns[:9])
    if asked not in (None, *columns):
        raise ValueError(f"data.label_column is {asked!r}, but the columns of {where} are {some or 'none'}")
    column = asked or next((name for name in _LABELS if name in columns), None)
    labels: list[Any] = [row.get(column) for _, row in found]
    classes = classes_of(labels, f"column {column!r} of {where}", count=0 if asked else len(found))
    if all(label is None for label in labels):  # as of what a model without classes drew
        why = f"{where} has the columns {some}; say which holds classes with --data.label_column"
        classes = Classes(why_none=why if columns and column is None else None)
        column = None
    elif any(row.get(column) != rows[path].get(column) for path, row in found):
        classes = Classes(why_none=f"{where} has several rows of a picture, with other labels")
    named = [row for _, row in found if isinstance(row.get("label_name"), str)]
    if column and classes.why_none is None and classes.names is None and named:
        words = {row.get(column): row["label_name"] for row in named}
        classes = replace(classes, names=tuple(words.get(n, str(n)) for n in range(max(labels) + 1)))
    return Told(names, read, rows, None if classes.why_none else column, classes)


def leads_out(name: str) -> bool:
    """True for a path that is absolute, or goes up."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts


# ------------------------------------------------------------------------------------------ reading


def read_list(list_name: str, content: bytes, column: str) -> list[tuple[str, Row]]:
    """Rows of a list that name a picture, each with its path from where the list's own path begins.

    Args:
        list_name: path of the list, whose ending says what it is.
        column: column of the pictures' paths.
    Raises: ValueError: it cannot be read, or names a picture outside of its folder.
    """
    found = []
    for row in read_rows(list_name, content):
        if isinstance(name := row.get(column), str):
            if leads_out(name):
                raise ValueError(f"{printable(list_name)} names {name!r}, {OUTSIDE}")
            path = posixpath.join(posixpath.dirname(list_name), name.replace("\\", "/"))
            found.append((posixpath.normpath(path), row))
    return found


def read_rows(list_name: str, content: bytes) -> list[Row]:
    """Rows of JSON lines, of Parquet, or of values with commas, semicolons or tabs between them.

    Raises: ValueError: it cannot be read.
    """
    ending = PurePosixPath(list_name.lower()).suffix
    try:
        if ending == ".parquet":
            check_installed(printable(list_name), "pyarrow", "tables")
            from pyarrow import parquet

            return list(parquet.read_table(io.BytesIO(content)).to_pylist())
        text = content.decode("utf-8-sig")
        if ending == ".jsonl":
            return [_json_row(line) for line in text.split("\n") if line.strip()]
        separator = max(",;\t", key=text.partition("\n")[0].count)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        header, *rows = [line for line in lines if line] or [[]]
    except (ValueError, csv.Error, OSError) as error:
        reason = (str(error) or repr(error)).splitlines()[0][:120]
        raise ValueError(
            f"{printable(list_name)} cannot be read ({reason}); mend it, or use --data.label_column none"
        ) from error
    columns = {name.strip(): [row[at] if at < len(row) else "" for row in rows] for at, name in enumerate(header)}
    told = [cells if name in ("file_name", "label_name") else _typed(cells) for name, cells in columns.items()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*told, strict=True)]


def _json_row(text: str) -> Row:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ValueError(f"{text[:40]!r} is no JSON object")
    return row


def _typed(cells: Sequence[str]) -> Sequence[Any]:
    """Text as numbers, if all of it is; None: empty."""
    for kind in (int, float):
        with suppress(ValueError):
            return [kind(cell) if cell else None for cell in cells]
    return [cell or None for cell in cells]
