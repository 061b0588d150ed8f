"""Kinds of files, told by how they begin; what is not read is refused by its name, with a way."""

import gzip
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePath

from fastddpm.data.opening import is_image
from fastddpm.data.sources.base import KINDS

LISTS = (".csv", ".tsv", ".jsonl")
"""endings of lists of pictures"""
_READ = (".zip", ".tar", ".npy", ".npz", ".parquet", ".idx", *LISTS)
AS_NPZ = "save the pictures by numpy.savez as images, (N, H, W) or (N, H, W, 3), uint8, and labels, (N,)"
_UNPACK = "unpack it, and give the folder"
_BEGINNINGS = {
    b"PK\3\4": ".zip", b"PK\5\6": ".zip", b"\x93NUMPY": ".npy", b"PAR1": ".parquet", b"\0\0\x08": ".idx",
    b"\x1f\x8b": ".gz", b"\x89HDF\r\n\x1a\n": f"HDF5; {AS_NPZ}", b"MATLAB": f"a MATLAB file; {AS_NPZ}",
    b"\x80\4": f"a pickle; {AS_NPZ}", b"7z\xbc\xaf\x27\x1c": f"a 7z archive; {_UNPACK}",
    b"Rar!\x1a\7": f"a RAR archive; {_UNPACK}", b"BZh": f"packed by bzip2; {_UNPACK}",
    b"\xfd7zXZ\0": f"packed by xz; {_UNPACK}", b"\x28\xb5\x2f\xfd": f"packed by zstd; {_UNPACK}",
    b"ARROW1": "an Arrow file; save it as Parquet", b"<": "a web page or XML; fetch or give the pictures themselves",
    b"{": "JSON; write a .jsonl or .csv file with file_name and label",
}  # fmt: skip
"""the ending of what is read, or what it is and the way on"""


def kind_of(path: Path) -> str:
    """Kind of a file that is read, as the usual ending, whatever its own is.

    Raises: ValueError: another kind, by its name and with a way.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise ValueError(f"{path} is empty (0 bytes); wanted {KINDS}")
    if (kind := _kind_of(head, path)) in _READ:
        return kind
    unknown = f"begins with 0x{head[:4].hex()}, as no file of images that is read does; wanted {KINDS}"
    raise ValueError(f"{path} {f'is {kind}' if ' ' in kind else unknown}")


def _kind_of(head: bytes, path: Path) -> str:
    kind = next((kind for beginning, kind in _BEGINNINGS.items() if head.startswith(beginning)), path.suffix.lower())
    if path.suffix.lower() in LISTS and not kind.startswith("."):
        return path.suffix.lower()  # a line of JSON begins as JSON does
    if head[257:262] == b"ustar":
        return ".tar"
    if kind == ".zip" and (path.suffix.lower() == ".npz" or b".npy" in head[30:80]):
        return ".npz"
    if kind != ".gz":
        return kind
    try:
        with gzip.open(path) as file:
            inner = _kind_of(file.read(512), path.with_suffix(""))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}); fetch it again") from error
    if inner in (".idx", ".tar"):
        return ".idx" if inner == ".idx" else "a packed tar (.tar.gz); gunzip makes a .tar, which is read where it lies"
    return f"packed by gzip; {_UNPACK}"


_BESIDE = (
    ".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".md", ".html", ".pdf", ".yaml", ".yml", ".cls", ".db", ".ini",
)  # fmt: skip
"""endings of files that lie beside pictures and tell of them"""


def check_kinds(source: str, num_pictures: int, others: Iterable[str]) -> None:
    """Raises: ValueError: more files are of kinds that are not read than are pictures, those that tell of pictures
    aside."""
    endings = (PurePath(name).suffix.lower() or "no ending" for name in others if not is_image(name))
    kinds = Counter(ending for ending in endings if ending not in _BESIDE)
    if num_pictures and kinds.total() > num_pictures:
        some = ", ".join(f"{kind} ({n:,})" for kind, n in kinds.most_common(5))
        raise ValueError(
            f"{source} holds {num_pictures:,} pictures and {kinds.total():,} files of kinds that are not read: {some}; "
            "convert them, or give a folder of the pictures alone"
        )
