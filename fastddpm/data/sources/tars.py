"""Tars of image files, read where they lie; several, as WebDataset has them, are one source."""

import io
import re
import tarfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from fastddpm.data.opening import check_num_bytes
from fastddpm.data.sources.base import Source
from fastddpm.data.sources.layouts import SPLIT_NAMES
from fastddpm.data.sources.zips import find_packed

_SPLIT = re.compile(rf"(?:^|[^a-z])({'|'.join(SPLIT_NAMES)})(?![a-z])", re.IGNORECASE)
_TAIL_BYTES = 2**20
"""bytes behind the last file that must be zeros: two blocks mark the end, and up to 10 KiB fill a record"""


def find_tars(root: Path, paths: Sequence[Path], label_column: str | None) -> Source:
    """The image files of one tar or of several, with what lies beside each.

    They are splits by their names (train-000.tar, val/000.tar), if each has one of a split, and one has train.

    Raises: ValueError: a tar that is broken, or no images.
    """
    found = [_SPLIT.search(path.relative_to(root).as_posix()) for path in paths]
    splits = {match[1].lower() for match in found if match}
    has_splits = None not in found and "train" in splits
    files = {}
    for path, match in zip(paths, found, strict=True):
        for name, read in _files_of(path).items():
            inner = PurePosixPath(name)
            unique = name if len(paths) == 1 else inner.with_name(f"{path.stem}-{inner.name}").as_posix()
            files[f"{match[1].lower()}/{unique}" if has_splits and match else unique] = read
    return find_packed(root if len(paths) > 1 else paths[0], paths, files, label_column)


def _files_of(path: Path) -> dict[str, partial[io.BytesIO]]:
    found = {}
    try:
        with tarfile.open(path, "r:") as tar, path.open("rb") as file:
            for info in tar:
                if info.isreg() and not info.issparse():
                    name = PurePosixPath(info.name).as_posix()
                    found[name] = partial(_read, path, info.offset_data, info.size)
            file.seek(tar.offset)  # where tarfile stopped: without a word, also at what is no header
            if not (tail := file.read(_TAIL_BYTES)) or any(tail):
                raise tarfile.ReadError("it has no end, or something behind its end")
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no whole tar ({error}); fetch or make it again") from error
    return found


def _read(path: Path, offset: int, num_bytes: int) -> io.BytesIO:
    check_num_bytes(num_bytes)
    with path.open("rb") as file:
        file.seek(offset)
        return io.BytesIO(file.read(num_bytes))
