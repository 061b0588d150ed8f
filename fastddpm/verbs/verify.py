"""`fastddpm verify`: every checksum, manifest and count below a folder."""

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastddpm.config.bounded_types import File, strict

Faults = Iterator[str]


@strict
class VerifyRequest:
    """Check what lies in a folder: checkpoints of a run, a saved model, weights in safetensors of whoever wrote them, a
    store of images, drawn images. A line a fault; the exit code is 1 if there is one."""

    folder: File
    """Run, saved model, store, or cache of many; folder of drawn images, or their .npz or .parquet."""


class Damaged(SystemExit):
    """End of a command that found faults."""


def verify(request: VerifyRequest) -> None:
    """Look at everything, and say what is wrong.

    Raises: ValueError: nothing there that can be checked. Damaged: code 1, after the faults.
    """
    found = {place: check for name, check in _KINDS for place in _places(request.folder, name)}
    if not found:
        raise ValueError(
            f"{request.folder} holds nothing to check; wanted a run, a model, *.safetensors, a store, drawn images"
        )
    num_faults = 0
    for place, check in found.items():
        for fault in check(place):
            num_faults += 1
            print(fault)
    if num_faults:
        print(f"{request.folder}: {num_faults} fault{'s' * (num_faults > 1)}, {len(found)} things looked at")
        raise Damaged(1)
    print(f"{request.folder}: whole, {len(found)} things looked at")


def _places(folder: Path, pattern: str) -> list[Path]:
    if folder.is_file():
        return [folder] if folder.match(pattern) else []
    return sorted(place for place in folder.rglob(pattern) if ".cache" not in place.parts)


def _checkpoint(manifest: Path) -> Faults:
    from fastddpm.training.checkpoint import verify as check

    yield from _refusal(lambda: check(manifest.parent))


def _store(record: Path) -> Faults:
    from fastddpm.config.bounded_text import read_facts
    from fastddpm.data.store import file_faults

    try:
        yield from (f"{record.parent}: {fault}" for fault in file_faults(record.parent, read_facts(record)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{record}: cannot be read ({error or type(error).__name__})"


def _saved(index: Path) -> Faults:
    from fastddpm.pipelines.saved_parts import check_saved

    yield from _refusal(lambda: check_saved(index.parent))


def _weights(path: Path) -> Faults:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no dict
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
                    yield f"{path}: {name} has numbers that are not finite"
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        yield f"{path}: no whole safetensors ({error})"


def _shards(index: Path) -> Faults:
    from safetensors import SafetensorError, safe_open

    from fastddpm.config.bounded_text import read_facts

    try:
        wanted = {(str(file), str(name)) for name, file in read_facts(index)["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{index}: no index of shards ({error})"
        return
    held = set()
    for file in sorted({file for file, _ in wanted}):
        path = index.parent / file
        if path.parent != index.parent or not path.is_file():
            yield f"{path}: is missing, and {index.name} names it"
            wanted = {of for of in wanted if of[0] != file}
            continue
        try:
            with safe_open(path, "pt") as shard:
                held |= {(file, name) for name in shard.keys()}  # noqa: SIM118 - no dict
        except (SafetensorError, OSError) as error:
            yield f"{path}: no whole safetensors ({error})"
    for file, name in sorted(wanted ^ held):
        yield f"{index.parent / file}: {name} is {'missing' if (file, name) in wanted else 'not in ' + index.name}"


def _drawn(metadata: Path) -> Faults:
    """Faults of a folder with a picture for each row, and a row for each picture."""
    from fastddpm.data.opening import is_image

    folder, named = metadata.parent, set()
    with metadata.open(encoding="utf-8", errors="replace") as rows:
        for number, row in enumerate(rows, 1):
            try:
                path = (folder / json.loads(row)["file_name"]).resolve()
            except (ValueError, KeyError, TypeError, RecursionError):
                yield f"{metadata}: row {number} is no JSON with a file_name"
                continue
            if not path.is_relative_to(folder.resolve()):
                yield f"{metadata}: row {number} names a file outside of the folder"
            elif (fault := _picture_fault(path)) is not None:
                yield f"{folder / path.relative_to(folder.resolve())}: {fault}"
            else:
                named.add(path)
    for path in sorted(folder.rglob("*")):
        if is_image(path.name) and not path.name.startswith(".") and path.resolve() not in named:
            yield f"{path}: no row of {metadata.name} names it, or it is damaged"


def _picture_fault(path: Path) -> str | None:
    from fastddpm.data.opening import BadImage, open_file, reason_of

    try:
        with open_file(path) as image:
            image.load()
    except BadImage as error:
        return str(error)
    except Exception as error:  # Pillow's readers raise nearly anything on a broken file
        return str(reason_of(error))
    return None


def _arrays(path: Path) -> Faults:
    from fastddpm.data.sources.arrays import outline

    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if (damaged := archive.testzip()) is not None:  # it reads piece by piece
                raise ValueError(f"the checksum of {damaged} is wrong")
        counts = {name: outline(path, name).shape[0] for name in names}
    except Exception as error:  # zipfile, zlib and NumPy raise their own
        yield f"{path}: cannot be read ({error})"
        return
    if len(set(counts.values())) > 1:
        yield f"{path}: arrays of different numbers of images ({counts})"


def _table(path: Path) -> Faults:
    from fastddpm.config.early_checks import check_installed

    check_installed("a .parquet", "pyarrow", "tables")
    from pyarrow import parquet

    from fastddpm.data.opening import open_bytes

    number = 0
    try:
        for batch in parquet.ParquetFile(path, page_checksum_verification=True).iter_batches(256):
            for row in batch.to_pylist():
                picture: Any = row.get("image")
                if isinstance(picture, dict) and picture.get("bytes"):
                    open_bytes(picture["bytes"]).load()
                number += 1
    except Exception as error:  # pyarrow and Pillow raise their own
        yield f"{path}: row {number} cannot be read ({error})"


def _refusal(check: Callable[[], object]) -> Faults:
    try:
        check()
    except ValueError as error:
        yield str(error)


_KINDS: tuple[tuple[str, Callable[[Path], Faults]], ...] = (
    ("checkpoints/step-*/manifest.json", _checkpoint),
    ("ingest.json", _store),
    ("model_index.json", _saved),
    ("*.safetensors", _weights),
    ("*.safetensors.index*.json", _shards),
    ("metadata.jsonl", _drawn),
    ("*.npz", _arrays),
    ("*.parquet", _table),
)
"""files by which a thing is known, and the check that it gets"""
