"""Image files: in a folder, in a zip, or in CelebA's own layout."""

import io
import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from PIL import Image

from fastddpm.data.decode import MAX_PIXELS, BadImage
from fastddpm.data.sources.base import Contents, Picture, Source, indexed, printable, split_and_label
from fastddpm.data.store import stamps_of

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")
MAX_FILE_BYTES = 5 * MAX_PIXELS
"""a larger file in a zip is refused before it is unpacked; uncompressed pixels take four, the rest is for metadata"""

PARTITION = "list_eval_partition.txt"
_CELEBA_SPLITS = {"0": "train", "1": "valid", "2": "test"}


# ------------------------------------------------------------------------------------------ folder


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
    """What a file is called in messages."""
    return printable(file.relative_to(folder).as_posix())


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
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


# ------------------------------------------------------------------------------------------ zip


def find_zip(path: Path) -> Source:
    """A zip of image files, read without unpacking it to the disk."""
    members = [member for member in _members(path) if not _is_hidden(member.filename)]
    images = sorted((m for m in members if is_image(m.filename)), key=lambda member: member.filename)
    others = tuple(sorted(printable(m.filename) for m in members if not is_image(m.filename)))
    if not images:
        raise ValueError(
            f"{path} holds no images: looked for {' '.join(EXTENSIONS)}; found {len(others)} other files"
            f"{': ' if others else ''}{', '.join(others[:5])}"
        )
    return Source(partial(_load_zip, path, images), stamps_of([path]), others)


def _members(path: Path) -> list[ZipInfo]:
    try:
        with ZipFile(path) as archive:
            return [member for member in archive.infolist() if not member.is_dir()]
    except BadZipFile as error:
        raise ValueError(f"{path} is no whole zip file ({error}); fetch it again") from error


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)


def _load_zip(path: Path, members: list[ZipInfo]) -> Contents:
    one_for_each_thread = threading.local()

    def open_member(index: int) -> Image.Image:
        member = members[index]
        if member.file_size > MAX_FILE_BYTES:
            raise BadImage(f"unpacks to {member.file_size:,} bytes, the limit is {MAX_FILE_BYTES:,}")
        if member.file_size == 0:
            raise BadImage("is empty (0 bytes)")
        if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):  # zipfile unpacks others past any limit
            raise BadImage(f"is packed by zip's method {member.compress_type}: pack the zip with deflate, as is usual")
        if not hasattr(one_for_each_thread, "archive"):
            one_for_each_thread.archive = ZipFile(path)
        content = io.BytesIO()
        with one_for_each_thread.archive.open(member) as packed:  # compares the checksum at its end
            shutil.copyfileobj(packed, content)  # read() at once would unpack more than the header says, and then cut
        content.seek(0)
        return Image.open(content)

    names = [member.filename.replace("\\", "/") for member in members]  # as some programs on Windows write them
    return Contents(*split_and_label(names, open_member))


# ------------------------------------------------------------------------------------------ CelebA


def find_celeba(path: Path, partition: Path) -> Source:
    """CelebA as its authors give it out: images of 178x218 and the list of its official splits.

    Args:
        path: the folder; the images lie in it or below it.
        partition: list_eval_partition.txt, a line `000001.jpg 0` an image; 0, 1, 2: train, valid, test.
    """
    listed = list(_partition_rows(partition))
    if not listed:
        raise ValueError(f"{partition} is empty; wanted a line `000001.jpg 0` an image: fetch it again")
    folders, files = walk(path)
    names = {name for name, _ in listed}
    by_name: dict[str, Path] = {}
    for file in files:
        if file.name in names and by_name.setdefault(file.name, file) != file:
            raise ValueError(
                f"{path} holds {file.name} twice: {relative(by_name[file.name], path)} and {relative(file, path)}; "
                f"give a folder with {PARTITION} and the images that are meant, such as img_align_celeba, alone"
            )
    others = tuple(relative(file, path) for file in files if file.name not in names and file != partition)
    return Source(
        partial(_load_celeba, path, listed, by_name), stamps_of([partition, *by_name.values()], folders), others
    )


def _partition_rows(partition: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(partition.read_text(errors="replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in _CELEBA_SPLITS:
            raise ValueError(f"{partition}, line {number} is {line!r}; wanted a file name and 0, 1 or 2")
        yield words[0], _CELEBA_SPLITS[words[1]]


def _load_celeba(path: Path, listed: list[tuple[str, str]], by_name: dict[str, Path]) -> Contents:
    def open_listed(name: str) -> Image.Image:
        if name not in by_name:
            raise BadImage(f"is listed in {PARTITION}, but is not below {path}: unpack img_align_celeba.zip there")
        return open_file(by_name[name])

    def picture_at(names: list[str], index: int) -> Picture:
        return Picture(names[index], partial(open_listed, names[index]))

    named = {split: [name for name, of in listed if of == split] for split in _CELEBA_SPLITS.values()}
    return Contents({split: indexed(partial(picture_at, names), len(names)) for split, names in named.items() if names})
