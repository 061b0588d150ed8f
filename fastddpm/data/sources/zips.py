"""A zip of image files, read without unpacking it to the disk."""

import io
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from fastddpm.data.opening import SOUGHT, BadImage, check_num_bytes, is_image, open_bytes
from fastddpm.data.sources.base import Source, printable
from fastddpm.data.sources.rows import told_beside
from fastddpm.data.store import stamps_of


def find_zip(path: Path, label_column: str | None) -> Source:
    """A zip of image files, read without unpacking it to the disk."""
    try:
        with ZipFile(path) as archive:
            members = {m.filename.replace("\\", "/"): m for m in archive.infolist() if not m.is_dir()}  # of Windows
    except BadZipFile as error:
        raise ValueError(f"{path} is no whole zip file ({error}); fetch it again") from error
    unpack = partial(_unpack, path, threading.local())
    files = {name: partial(unpack, member) for name, member in members.items()}
    return find_packed(path, [path], files, label_column)


def _unpack(path: Path, one_for_each_thread: threading.local, member: ZipInfo) -> io.BytesIO:
    check_num_bytes(member.file_size)
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):  # zipfile unpacks others past any limit
        raise BadImage(f"is packed by zip's method {member.compress_type}: pack the zip with deflate, as is usual")
    if not hasattr(one_for_each_thread, "archive"):
        one_for_each_thread.archive = ZipFile(path)
    content = io.BytesIO()
    with one_for_each_thread.archive.open(member) as packed:  # compares the checksum at its end
        shutil.copyfileobj(packed, content)  # read() at once would unpack more than the header says, and then cut
    content.seek(0)
    return content


def find_packed(
    path: Path, stamped: Sequence[Path], files: Mapping[str, Callable[[], io.BytesIO]], label_column: str | None
) -> Source:
    """Image files in archives, as in a folder; what is hidden, and what macOS adds, counts for nothing.

    Args:
        stamped: the archives.
        files: what reads each file, by its path.
    Raises: ValueError: no images.
    """
    parts_of = {name: PurePosixPath(name).parts for name in sorted(files)}
    names = [n for n, parts in parts_of.items() if "__MACOSX" not in parts and not any(p[0] == "." for p in parts)]
    images, others = [name for name in names if is_image(name)], [name for name in names if not is_image(name)]
    if not images:
        raise ValueError(
            f"{path} holds no images: looked for {SOUGHT}; found {len(others)} other files"
            f"{': ' if others else ''}{', '.join(map(printable, others[:5]))}"
        )

    def read(name: str) -> bytes:
        try:
            return files[name]().getvalue()
        except Exception as error:  # as of a picture, which is a bad file then
            raise ValueError(f"{path}: {printable(name)} cannot be unpacked ({error}); pack it again") from error

    told = told_beside(images, others, read, label_column)
    return told.source(names, lambda name: open_bytes(files[name](), name), stamps_of(stamped))
