"""Errors of a disk in one line: which place is full or closed, and the option or variable that moves it."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastddpm.config.checks import value_of
from fastddpm.config.describe import options_of
from fastddpm.files import cache_root

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NEARLY_FULL = 2**20
"""bytes that are left on a disk that is taken for the full one, where an error names no file"""


def explained(error: OSError, request: Any = None, positionals: Sequence[str] = ()) -> str:
    """Say what went wrong and what to do; of the system's own errors, those that people meet.

    Args:
        request: what the verb was asked for; None: it is not known yet.
        positionals: names of its options that are given without a name.
    """
    if error.errno is None:
        return str(error)
    places = [] if request is None else [*_of_request(request, positionals)]
    places += _of_surroundings("--data.cache_dir" if "--data.cache_dir" in dict(places) else "FASTDDPM_CACHE")
    where = error.filename or (_full_one(places) if error.errno == errno.ENOSPC else None)
    name = None if where is None else _name_of(Path(where).absolute(), places)
    if error.errno in _FULL:
        elsewhere = f", or put {name} on a larger disk" if name else ""
        return (
            f"{where or 'the disk'} has no room ({error.strerror}); what was saved before is whole: free some"
            f"{elsewhere}, and start again"
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        another = f"choose another {name}" if name else "choose another folder"
        return f"{where} is a file, where a folder was wanted ({error.strerror}); move it away, or {another}"
    if error.errno in _CLOSED:
        another = f", or choose another {name}" if name else ""
        return f"{where} may not be read or written by this user ({error.strerror}); change its permissions{another}"
    return str(error)


def _of_request(request: Any, positionals: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Options and the places that they name; what is no path names a place that is not there."""
    for name, option in options_of(type(request)).items():
        value = value_of(request, option.field)
        if isinstance(value, str | os.PathLike) and str(value):
            yield name.upper() if name in positionals else f"--{name}", Path(value).expanduser().absolute()
        elif name == "data.cache_dir":
            yield f"--{name}", cache_root(None)


def _of_surroundings(cache: str) -> Iterator[tuple[str, Path]]:
    yield cache, cache_root(None)
    yield "HF_HOME", Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser().absolute()
    with suppress(OSError):  # there is none that may be written to
        yield "TMPDIR", Path(tempfile.gettempdir())


def _name_of(path: Path, places: list[tuple[str, Path]]) -> str | None:
    """The name of the closest place that a path lies in; what is made beside a place is its own."""
    around = [
        (len(place.parts), name)
        for name, place in places
        if path.is_relative_to(place) or any(p.name.startswith(f".{place.name}.") and p.parent == place.parent
                                             for p in (path, *path.parents))
    ]  # fmt: skip
    return max(around, key=lambda found: found[0], default=(0, None))[1]


def _full_one(places: list[tuple[str, Path]]) -> str | None:
    for _, place in places:
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        if shutil.disk_usage(there).free < _NEARLY_FULL:
            return str(place)
    return None
