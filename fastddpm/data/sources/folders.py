"""Image files in a folder."""

import os
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from PIL import Image

from fastddpm import files
from fastddpm.config import DataConfig
from fastddpm.data.opening import SOUGHT, BadImage, is_image, open_file
from fastddpm.data.sources.base import Source, printable
from fastddpm.data.sources.kinds import AS_NPZ
from fastddpm.data.sources.rows import OUTSIDE, leads_out, read_list, read_rows, told_beside, told_by
from fastddpm.data.store import stamps_of

PARTITION = "list_eval_partition.txt"


def find_folder(path: Path, label_column: str | None) -> Source:
    """A folder of image files, links followed, without what is hidden."""
    folders, files = walk(path)
    start = len(path.as_posix().rstrip("/")) + 1  # ten times as fast as relative_to
    named = {file.as_posix()[start:]: file for file in files}
    images, others = [name for name in named if is_image(name)], [name for name in named if not is_image(name)]
    if not images:
        is_arrays = any(name.lower().endswith((".npy", ".h5", ".mat")) for name in others)
        way = f"; of many arrays make one file: {AS_NPZ}" if is_arrays else ""
        raise ValueError(
            f"{path} holds no images: looked in all its folders for {SOUGHT}, and in itself for "
            f"*images-idx3-ubyte[.gz], *.parquet and {PARTITION}; found {len(others)} other files"
            f"{': ' if others else ''}{', '.join(map(printable, others[:5]))}; "
            f"give a folder, zip or file of images as data.source{way}"
        )
    told = told_beside(images, others, lambda name: named[name].read_bytes(), label_column)
    files = [named[name] if name in named else path / name for name in told.names]
    stamps = stamps_of(files, folders, always=[named[name] for name in told.read])
    return told.source(named, lambda name: open_inside(path, name) if told.column else open_file(named[name]), stamps)


def find_list(path: Path, config: DataConfig) -> Source:
    """A .csv, .tsv or .jsonl file with a column of paths, relative to its folder, and perhaps one of classes.

    Raises: ValueError: no such column.
    """
    content, root = path.read_bytes(), path.parent
    first = next(iter(read_rows(path.name, content)), {})
    column = config.image_column or next((name for name in first if is_image(str(first[name]))), "file_name")
    found = read_list(path.name, content, column)
    if not found:
        raise ValueError(
            f"{path} has no paths of pictures: its columns are {', '.join(list(first)[:9])}; wanted a first line such "
            "as file_name,label and paths below (say which column with --data.image_column); of pixels, an .npz"
        )
    told = told_by([name for name, _ in found], found, [path.name], config.label_column)
    stamps = stamps_of([root / name for name in told.names], always=[path])
    return replace(told.source((), partial(open_inside, root), stamps), takes=("image_column", "label_column"))


def open_inside(root: Path, name: str) -> Image.Image:
    """Open the picture that a row names.

    Args:
        root: the folder of the row's file, or of all.
    Raises: BadImage: it leads out of that folder, by its name or by a link; and what `open_file` raises.
    """
    if leads_out(name) or not is_below(root / name, root):
        raise BadImage(f"is named {name!r}, {OUTSIDE}")
    return open_file(root / name)


def is_below(path: Path, root: Path) -> bool:
    """True for what really lies in a folder, after all links."""
    real = Path(os.path.realpath(path)) if path.is_symlink() else _real(path.parent)
    return real.is_relative_to(_real(root))


@lru_cache  # 30 microseconds each
def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


def relative(file: Path, folder: Path) -> str:
    """Name of a file in messages."""
    return printable(file.relative_to(folder).as_posix())


def walk(root: Path) -> tuple[list[Path], list[Path]]:
    """All folders and all files below a folder, sorted; links are followed, what is hidden is left out."""
    visited: dict[str, str] = {}
    folders, found = [], []
    for folder, subfolders, names in files.walk(root, followlinks=True, onerror=_raise):
        real = os.path.realpath(folder)
        if real in visited:
            raise ValueError(f"{folder} is the same folder as {visited[real]}: remove the link, or images count twice")
        visited[real] = folder
        folders.append(Path(folder))
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return folders, sorted(found, key=Path.as_posix)


def _raise(error: OSError) -> None:
    raise error  # os.walk would leave out a folder that it cannot read
