"""The store of decoded images: a folder `<cache_dir>/<key>/`, put in its place in one move.

    images.npy       (N, C, H, W), uint8: no two alike; the images of a split lie together
    hashes.npy       (N, 16), uint8: BLAKE2b of each image's bytes
    labels.npy       (N,), int64, if there are labels
    duplicates.npy   (K, 3), int64: of each further copy of an image its index, label (-1: none) and split
    cut_off.npy      (n, C, H, W), uint8: some pictures of which more than a quarter is cut off, if there are any
    names.npy        names of the images, then of the copies; see `packed`
    ingest.json      what was read, how, and the checksums of the other files

A process fills `<key>.part` while it holds the lock of `<key>` (see `data.filling`), then renames it.
"""

import hashlib
import json
import logging
import math
import re
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastddpm import files
from fastddpm.files import put, write_json

VERIFIED_BYTES = 2 * 2**30
"""a larger images.npy is not read whole at every start: each image is compared with its hash when it is read"""
HASH_BYTES = 16
NAMES = "names.npy"
_PART_SECONDS = 7 * 24 * 3600
_log = logging.getLogger(__name__)


class MissingEntry(Exception):
    """There is no store."""


class StaleEntry(MissingEntry):
    """The source is no longer what it was when it was read in."""


class DamagedEntry(MissingEntry):
    """A store does not hold what its ingest.json says."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A store that was opened: the usable images of a source, each once."""

    folder: Path
    images: np.ndarray
    """(N, C, H, W), uint8, a read-only map"""
    hashes: np.ndarray
    """(N, 16), uint8; see `image_hash`"""
    labels: np.ndarray | None
    """(N,), int64"""
    duplicates: np.ndarray
    """(K, 3), int64: image, label (-1: none) and split of each further copy"""
    facts: Mapping[str, Any]
    """ingest.json: plain JSON values, such as counts, sizes, modes and bad files"""


def key_of(facts: Mapping[str, Any]) -> str:
    """32 hexadecimal digits that differ when any of the facts (plain JSON values) does."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def image_hash(image: np.ndarray) -> bytes:
    """16 bytes that stand for an image's pixels."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=HASH_BYTES).digest()


def packed(names: bytes | Sequence[str]) -> np.ndarray:
    """Names, or lines of them, compressed: (bytes,), uint8."""
    lines = names if isinstance(names, bytes) else "".join(f"{name}\n" for name in names).encode()
    return np.frombuffer(zlib.compress(lines, 1), np.uint8)


def unpacked(names: np.ndarray) -> list[str]:
    """The inverse, without what lines say after a tab."""
    return [line.partition("\t")[0] for line in _lines(names)]


def told_groups(names: np.ndarray) -> list[str]:
    """Group of each name, as the source tells it, after a tab; empty: it tells none."""
    return [line.partition("\t")[2] for line in _lines(names)]


def _lines(names: np.ndarray) -> list[str]:
    return zlib.decompress(names.tobytes()).decode().split("\n")[:-1]


def read_entry(folder: Path) -> Entry:
    """Map a store after comparing its files with ingest.json, and its source with what it was.

    Raises: MissingEntry: no such folder. StaleEntry: the source has changed. DamagedEntry: with the reason.
    """
    if not folder.is_dir():
        raise MissingEntry
    try:
        manifest = json.loads((folder / "ingest.json").read_text())
        if not are_current(manifest["stamps"]):
            raise StaleEntry
        for fault in file_faults(folder, manifest, VERIFIED_BYTES):
            raise DamagedEntry(fault)
        arrays = {name: np.load(folder / name, mmap_mode="r") for name in manifest["files"]}
        labels, duplicates = arrays.get("labels.npy"), np.array(arrays["duplicates.npy"])
        return Entry(folder, arrays["images.npy"], arrays["hashes.npy"], labels, duplicates, manifest)
    except FileNotFoundError as error:
        raise DamagedEntry(f"{Path(error.filename).name} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedEntry(str(error)) from error


def file_faults(folder: Path, manifest: Mapping[str, Any], largest: float = math.inf) -> Iterator[str]:
    """Faults of a store's files by its ingest.json; those of more bytes than `largest` are not read."""
    for name, facts in manifest["files"].items():
        if Path(name).name != name or not (folder / name).is_file():
            yield f"{name} is missing"
        elif (got := (folder / name).stat().st_size) != facts["num_bytes"]:
            yield f"{name} has {got} bytes, wanted {facts['num_bytes']}"
        elif got <= largest and _sha256(folder / name) != facts["sha256"]:
            yield f"the checksum of {name} is wrong"


def commit(part: Path, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ingest.json (`facts` and the checksums) and put the store in its place, instead of an older one: the .npy
    files of `part`. Whatever else is in it goes."""
    arrays, record = sorted(part.glob("*.npy")), part / "ingest.json"
    write_json(record, dict(facts) | {"files": {path.name: _facts_of(path) for path in arrays}})
    for path in set(part.iterdir()) - {*arrays, record}:  # last: until here a killed process is gone on with
        path.unlink()
    put(part, folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time, on any machine, write the store of a folder; the others wait here.

    Raises: ValueError: the file system has no locks.
    """
    waits = partial(_log.warning, "another process is reading these images in; waiting for it")
    with files.locked(folder, option="FASTDDPM_CACHE or --data.cache_dir", wait=waits):
        _remove_leftovers(folder)
        yield


def _remove_leftovers(folder: Path) -> None:
    """Parts of other stores that nobody went on with for a week."""
    for left in folder.parent.iterdir():
        is_old = re.fullmatch(r"[0-9a-f]{32}\.part", left.name) and time.time() - left.stat().st_mtime > _PART_SECONDS
        if is_old and left != folder.with_suffix(".part"):
            with suppress(files.InUseError), files.locked(left.with_suffix("")):
                shutil.rmtree(left, ignore_errors=True)


def _facts_of(path: Path) -> dict[str, Any]:
    return {"num_bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


ALL_FILES = 10_000
"""limit of files that are looked at one by one: of a source with more, its folders and this many files stand for the
rest, so that a start stays quick"""


def stamps_of(files: Sequence[Path], folders: Iterable[Path] = (), always: Iterable[Path] = ()) -> dict[str, Any]:
    """Sizes and times, as plain JSON values.

    A file that was added, removed or renamed shows in its folder's time. One that was written over in place shows in
    its own, which is kept of all files up to `ALL_FILES`, else of that many, evenly spaced, and of
    those that are looked at `always`.
    """
    step = -(-len(files) // ALL_FILES)
    chosen = [*(files[::step] if step else []), *always]
    return {
        "files": {str(file): _file_stamp(file) for file in chosen},
        "folders": {str(folder): _folder_stamp(folder) for folder in folders},
    }


def are_current(stamps: Mapping[str, Any]) -> bool:
    """True if each of those files and folders is as it was."""
    return all(_folder_stamp(Path(name)) == stamp for name, stamp in stamps["folders"].items()) and all(
        _file_stamp(Path(name)) == stamp for name, stamp in stamps["files"].items()
    )


def _file_stamp(path: Path) -> list[int] | None:
    with suppress(OSError, ValueError):  # a link that leads nowhere is a bad file, named when it is read
        status = path.stat()
        return [status.st_size, status.st_mtime_ns]
    return None


def _folder_stamp(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return None
