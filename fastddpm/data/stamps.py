"""Whether a source is still what it was when it was read in, without looking at every file of a large one."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ALL_FILES = 10_000
"""of a source with more files, its folders and this many files stand for the rest, so that a start stays quick"""


def stamps_of(files: Sequence[Path], folders: Iterable[Path] = ()) -> dict[str, Any]:
    """Sizes and times, as plain JSON values.

    A file that was added, removed or renamed shows in its folder's time. One that was written over in place shows in
    its own, which is kept of all files up to `ALL_FILES`, else of that many, evenly spaced.
    """
    step = -(-len(files) // ALL_FILES)
    chosen = files[::step] if step else []
    return {
        "files": {str(file): _file_stamp(file) for file in chosen},
        "folders": {str(folder): _folder_stamp(folder) for folder in folders},
    }


def are_current(stamps: Mapping[str, Any]) -> bool:
    """Whether each of those files and folders is as it was."""
    return all(_folder_stamp(Path(name)) == stamp for name, stamp in stamps["folders"].items()) and all(
        _file_stamp(Path(name)) == stamp for name, stamp in stamps["files"].items()
    )


def _file_stamp(path: Path) -> list[int] | None:
    with suppress(OSError):  # a link that leads nowhere is a bad file, named when it is read
        status = path.stat()
        return [status.st_size, status.st_mtime_ns]
    return None


def _folder_stamp(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return None
