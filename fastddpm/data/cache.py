"""The store of decoded images: `<cache_dir>/<key>/` with images.npy, labels.npy and ingest.json, written in one move.

A process fills `<key>.tmp` while it holds the lock of `<key>.lock`, then renames the folder. The lock ends with its
process, so a `.tmp` whose lock is free was left behind and may go.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout

VERIFIED_BYTES = 8 * 2**30
"""larger files are checked by size alone: a checksum would read them whole at every start"""

_log = logging.getLogger(__name__)


class MissingEntry(Exception):
    """There is no store."""


class DamagedEntry(MissingEntry):
    """A store does not hold what its ingest.json says."""


@dataclass(frozen=True)
class Entry:
    """A store that was opened."""

    images: np.ndarray
    """(N, C, H, W), uint8, mapped"""
    labels: np.ndarray | None
    """(N,), int64"""
    manifest: dict[str, Any]
    """ingest.json"""


def root(cache_dir: str | None) -> Path:
    """The folder of all stores: as given, else $FASTDDPM_CACHE, else ~/.cache/fastddpm."""
    return Path(cache_dir or os.environ.get("FASTDDPM_CACHE") or "~/.cache/fastddpm").expanduser().absolute()


def key_of(facts: Mapping[str, Any]) -> str:
    """32 hexadecimal digits that differ when any of the facts (plain JSON values) does."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def read_entry(folder: Path) -> Entry:
    """Map a store after comparing its files with ingest.json.

    Raises: MissingEntry: no such folder. DamagedEntry: with the reason.
    """
    if not folder.is_dir():
        raise MissingEntry
    try:
        manifest = json.loads((folder / "ingest.json").read_text())
        for name, facts in manifest["files"].items():
            _verify(folder / name, **facts)
        has_labels = "labels.npy" in manifest["files"]
        labels = np.load(folder / "labels.npy") if has_labels else None
        return Entry(np.load(folder / "images.npy", mmap_mode="r"), labels, manifest)
    except FileNotFoundError as error:
        raise DamagedEntry(f"{Path(error.filename).name} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedEntry(str(error)) from error


def _verify(path: Path, *, num_bytes: int, sha256: str) -> None:
    if (got := path.stat().st_size) != num_bytes:
        raise DamagedEntry(f"{path.name} has {got} bytes, wanted {num_bytes}")
    if num_bytes <= VERIFIED_BYTES and _sha256(path) != sha256:
        raise DamagedEntry(f"the checksum of {path.name} is wrong")


@contextmanager
def new_entry(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill and `commit`; it goes if that does not come about. Needs the lock of `folder`."""
    temporary = folder.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that ended while this one waited for the lock
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def commit(temporary: Path, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ingest.json (`facts` and the checksums) and put the store in its place, instead of a damaged one."""
    manifest = dict(facts) | {"files": {path.name: _facts_of(path) for path in sorted(temporary.iterdir())}}
    with _synced(temporary / "ingest.json") as file:
        file.write(json.dumps(manifest, indent=1).encode())
    _sync_folder(temporary)
    if folder.exists():  # who has it mapped keeps the old files
        shutil.rmtree(folder)
    temporary.rename(folder)
    _sync_folder(folder.parent)


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an .npy file, down to the disk."""
    with _synced(path) as file:
        np.save(file, array)


def save_images(path: Path, frames: Iterable[np.ndarray], image_shape: tuple[int, int, int]) -> None:
    """Write an .npy file, (N, C, H, W) uint8, of images that come one by one, N being known at the end only."""
    num_images = 0
    with _synced(path) as file:
        _write_header(file, (0, *image_shape))
        for frame in frames:
            assert frame.shape == image_shape, (frame.shape, image_shape)
            assert frame.dtype == np.uint8, frame.dtype
            file.write(np.ascontiguousarray(frame).data)
            num_images += 1
        file.seek(0)
        _write_header(file, (num_images, *image_shape))  # as long as before: numpy leaves room for the first axis


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time, on any machine, write the store of a folder; the others wait here.

    Raises: ValueError: the file system has no locks.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder.parent)
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            _log.warning("another process is reading these images in; waiting for it")
            lock.acquire()
    except NotImplementedError as error:
        raise ValueError(f"{folder.parent} is on a file system without locks; set data.cache_dir elsewhere") from error
    try:
        yield
    finally:
        lock.release()


def _remove_leftovers(folder: Path) -> None:
    for left in folder.iterdir():
        if re.fullmatch(r"[0-9a-f]{32}\.tmp", left.name):
            with suppress(Timeout), FileLock(left.with_suffix(".lock"), blocking=False):
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _synced(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _facts_of(path: Path) -> dict[str, Any]:
    return {"num_bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
