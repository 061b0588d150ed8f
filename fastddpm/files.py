"""Files that are whole or not there, and one job at a time for what lies at a path.

A file or folder is made under the hidden name `.NAME.tmp` beside its own, synced, and put in its place in one move.
What a killed process left under that name goes when the same is written again. A link is replaced, not followed.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


def aside(path: Path) -> Path:
    """The name under which a file or folder is made until it is whole."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def written(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """A place to write a file to; at the end it becomes `path`, whose folder is made.

    Args:
        synced: False: as one of many small files, whose folder is synced once some are written.
    Raises: OSError: of the disk, with the name `path`.
    """
    temporary = aside(path)
    with naming(path, temporary):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove(temporary)
            yield temporary
            if synced:
                put(temporary, path)
            else:
                os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                remove(temporary)
            raise


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let an error of the disk that names no file, or the temporary one, name this path."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def write_bytes(path: Path, content: bytes, *, synced: bool = True) -> None:
    """Write a whole file."""
    with written(path, synced=synced) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole file, in UTF-8; bytes of file names that are no text are written as JSON escapes them."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write plain JSON values."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def put(made: Path, path: Path) -> None:
    """Sync a file, or a folder and all in it, and move it to its place; an older folder there goes."""
    older = aside(path.with_name(f"{path.name}.old"))
    remove(older)
    for parent, _, names in os.walk(made):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))
    if not made.is_dir():
        sync(made)
    elif os.path.lexists(path):  # who has its files open keeps them
        os.replace(path, older)
    os.replace(made, path)
    sync(path.parent)
    remove(older)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the disk holds a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """Wait until the disk holds all files of a folder: at once, where the system can, as file by file takes longer."""
    if hasattr(os, "sync"):
        os.sync()
        return
    for path in folder.iterdir():
        sync(path)


MAX_FOLDERS = 100


def walk(root: Path, **options: Any) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk as `os.walk` does, which calls itself for each folder in a folder before Python 3.12, to a depth.

    Raises: ValueError: deeper folders.
    """
    depth = str(root).count(os.sep)
    for found in os.walk(root, **options):
        if found[0].count(os.sep) - depth > MAX_FOLDERS:
            raise ValueError(f"{root} has folders more than {MAX_FOLDERS} deep in one another; move what is meant up")
        yield found


def cache_root(cache_dir: str | None) -> Path:
    """The folder of all stores: as given, else $FASTDDPM_CACHE, else ~/.cache/fastddpm."""
    return Path(cache_dir or os.environ.get("FASTDDPM_CACHE") or "~/.cache/fastddpm").expanduser().absolute()


_ADDRESS = re.compile(r"[a-zA-Z][\w+.-]+:/")
"""a path keeps one stroke of two"""


def check_is_here(place: str | Path, option: str = "--out") -> None:
    """Raises: ValueError: a place to write to is an address, which would become a folder of that name."""
    if _ADDRESS.match(str(place)):
        address = re.sub(":/+", "://", str(place), count=1)
        raise ValueError(f"{option} is {address}, an address; wanted a path on this machine: write there, then copy it")


class InUseError(ValueError):
    """Another job writes there."""


@contextmanager
def locked(
    out: Path, state: Any = None, *, option: str = "--out", wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Let one job at a time write at `out`, on any machine; every rank calls it, the main one holds the lock.

    The lock is the file `.NAME.lock` beside `out`, or in it where the folder around it may not be written to. It goes
    with the process that holds it.

    Args:
        state: Accelerate's; None: there is one process.
        option: where `out` is from, for the message.
        wait: is called before waiting for the other job; None: refuse.
    Raises: InUseError: another job holds it, on all ranks. ValueError: a file system without locks.
    """
    lock, refusal = None, None
    if state is None or state.is_main_process:
        try:
            lock = _acquired(out, option, wait)
        except (ValueError, OSError) as error:
            refusal = error
    if state is not None and state.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        refusal = broadcast_object_list([refusal])[0]
    if refusal is not None:
        raise refusal
    try:
        yield
    finally:
        if lock is not None:
            with suppress(OSError):  # who waits for it sees that the name is gone, and makes a new one
                os.unlink(lock.lock_file)
            lock.release()


_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def _acquired(out: Path, option: str, wait: Callable[[], None] | None) -> FileLock:
    check_is_here(out, option)
    lock = FileLock(place_of_lock(out))
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if wait is None:
                raise InUseError(f"{out} is in use by a running job; wait for it, or choose another {option}") from None
            wait()
            lock.acquire()
    except (NotImplementedError, OSError) as error:
        if isinstance(error, NotImplementedError) or error.errno in _WITHOUT_LOCKS:
            raise ValueError(f"{out} is on a file system without locks; choose another {option}") from error
        raise OSError(error.errno, os.strerror(error.errno or 0), str(out)) from error
    return lock


def place_of_lock(out: Path) -> Path:
    """The file that says that a job writes at `out`."""
    real = Path(os.path.realpath(out))  # by whatever links and names it is called
    with suppress(OSError):
        real.parent.mkdir(parents=True, exist_ok=True)
    around = real.parent if os.access(real.parent, os.W_OK) or not real.is_dir() else real
    return around / f".{real.name}.lock"
