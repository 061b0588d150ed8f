"""A zip of image files, read without unpacking it to the disk."""

import io
import shutil
import threading
from functools import partial
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from PIL import Image

from fastddpm.data.decode import MAX_PIXELS, BadImage
from fastddpm.data.sources.base import Contents, Source, printable, split_and_label
from fastddpm.data.sources.folders import EXTENSIONS, is_image
from fastddpm.data.store import stamps_of

MAX_FILE_BYTES = 5 * MAX_PIXELS
"""a larger file in a zip is refused before it is unpacked; uncompressed pixels take four, the rest is for metadata"""


def find_zip(path: Path) -> Source:
    """A zip of image files, read without unpacking it to the disk."""
    try:
        with ZipFile(path) as archive:
            found = [(member, PurePosixPath(member.filename).parts) for member in archive.infolist()]
    except BadZipFile as error:
        raise ValueError(f"{path} is no whole zip file ({error}); fetch it again") from error
    members = [
        member for member, parts in found
        if not (member.is_dir() or "__MACOSX" in parts or any(part.startswith(".") for part in parts))
    ]  # fmt: skip
    images = sorted((m for m in members if is_image(m.filename)), key=lambda member: member.filename)
    others = tuple(sorted(printable(m.filename) for m in members if not is_image(m.filename)))
    if not images:
        raise ValueError(
            f"{path} holds no images: looked for {' '.join(EXTENSIONS)}; found {len(others)} other files"
            f"{': ' if others else ''}{', '.join(others[:5])}"
        )
    return Source(partial(_load_zip, path, images), stamps_of([path]), others)


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
