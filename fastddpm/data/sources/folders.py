"""Image files in a folder."""

import os
from pathlib import Path

from PIL import Image

from fastddpm.data.decode import BadImage
from fastddpm.data.sources.base import Contents, Source, printable, split_and_label
from fastddpm.data.store import stamps_of

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")

PARTITION = "list_eval_partition.txt"


def find_folder(path: Path) -> Source:
    """A folder of image files, links followed, without what is hidden."""
    folders, files = walk(path)
    images = [file for file in files if is_image(file.name)]
    others = tuple(relative(file, path) for file in files if not is_image(file.name))
    if not images:
        raise ValueError(
            f"{path} holds no images: looked in all its folders for {' '.join(EXTENSIONS)}, and in itself for "
            f"*images-idx3-ubyte[.gz], *.parquet and {PARTITION}; found {len(others)} other files"
            f"{': ' if others else ''}{', '.join(others[:5])}; give a folder, zip or file of images as data.source"
        )
    names = [file.relative_to(path).as_posix() for file in images]
    return Source(
        lambda: Contents(*split_and_label(names, lambda index: open_file(images[index]))),
        stamps_of(images, folders),
        others,
    )


def open_file(path: Path) -> Image.Image:
    """Open an image file.

    Raises: BadImage: empty, gone, or not readable for this user.
    """
    try:
        if path.stat().st_size == 0:
            raise BadImage("is empty (0 bytes)")
        return Image.open(path)
    except FileNotFoundError as error:
        raise BadImage("is not there: a link that leads nowhere, or a file that went away") from error
    except PermissionError as error:
        raise BadImage("may not be read by this user: change its permissions") from error


def relative(file: Path, folder: Path) -> str:
    """Name of a file in messages."""
    return printable(file.relative_to(folder).as_posix())


def is_image(name: str) -> bool:
    """True for the name of an image file."""
    return name.lower().endswith(EXTENSIONS)


def walk(root: Path) -> tuple[list[Path], list[Path]]:
    """All folders and all files below a folder, sorted; links are followed, what is hidden is left out."""
    visited: dict[str, str] = {}
    folders, found = [], []
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_raise):
        real = os.path.realpath(folder)
        if real in visited:
            raise ValueError(f"{folder} is the same folder as {visited[real]}: remove the link, or images count twice")
        visited[real] = folder
        folders.append(Path(folder))
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(folder, name) for name in files if not name.startswith(".")]
    return folders, sorted(found, key=lambda file: file.relative_to(root).as_posix())


def _raise(error: OSError) -> None:
    raise error  # os.walk would leave out a folder that it cannot read
