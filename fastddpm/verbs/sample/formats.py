"""Images into files: one PNG per image, NPZ, Parquet, or one grid. Each takes its images batch by batch, in order.

The same images give the same bytes; nothing that is written holds a time or the name of a machine.
"""

import io
import itertools
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastddpm.config.early_checks import check_out
from fastddpm.data.opening import open_bytes, open_file
from fastddpm.files import sync, write_bytes, written

MAX_GRID_IMAGES = 2_500
MAX_GRID_PIXELS = 100_000_000
FOLDER = "folder"
_FILE_KINDS = (".png", ".npz", ".parquet")
SETTINGS_NAME = ".sample.json"
"""file in a folder of images: what they were drawn with"""


@dataclass(frozen=True)
class Batch:
    """Some images, (B, C, H, W), uint8, and of each what metadata.jsonl says: `file_name`, `seed`, `label`, ..."""

    images: np.ndarray
    rows: list[dict[str, Any]]


Batches = Iterable[Batch]
Settings = dict[str, Any]


def kind_of(out: Path, num_images: int, image_shape: tuple[int, int, int]) -> str:
    """A file's ending, or `FOLDER`.

    Raises: ValueError: an ending that is no format's, or more images than a grid is for.
    """
    check_out(out, ("", *_FILE_KINDS))
    kind = out.suffix.lower()
    if kind == ".png":
        check_grid(num_images, image_shape)
    return kind if kind in _FILE_KINDS else FOLDER


def check_grid(num_images: int, image_shape: tuple[int, int, int]) -> None:
    """Raises: ValueError: more images than one picture is for."""
    _, height, width = image_shape
    most = max(1, min(MAX_GRID_IMAGES, MAX_GRID_PIXELS // (height * width)))
    if num_images > most:
        raise ValueError(
            f"a .png is one grid, of at most {most:,} images of {width}x{height}, and {num_images:,} are asked for; "
            "give --out a folder (a PNG an image), or a file that ends in .npz or .parquet"
        )


def save_file(path: Path, batches: Batches, num_images: int, settings: Settings) -> None:
    """One NPZ or Parquet file, by its ending."""
    if path.suffix.lower() == ".npz":
        save_npz(path, batches, num_images, settings)
    else:
        save_parquet(path, batches, settings)


def save_pngs(folder: Path, batch: Batch) -> None:
    """A PNG an image, each whole or not there.

    The folder is synced once: file by file it took 12 times as long as without (docs/log.md, 2026-11-29).
    """
    for image, row in zip(batch.images, batch.rows, strict=True):
        write_bytes(folder / row["file_name"], png_of(image), synced=False)
    sync(folder)


def save_metadata(folder: Path, rows: Iterable[dict[str, Any]]) -> None:
    """metadata.jsonl, as `datasets` reads it beside images."""
    with written(folder / "metadata.jsonl") as temporary, temporary.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def png_of(image: np.ndarray) -> bytes:
    """An image, (C, H, W), uint8, of one or three channels, as the bytes of a PNG file."""
    packed = io.BytesIO()
    Image.fromarray(_as_stored(image[None])[0]).save(packed, format="PNG")
    return packed.getvalue()


def save_npz(path: Path, batches: Batches, num_images: int, settings: Settings) -> None:
    """`images`, (N, H, W) or (N, H, W, 3), uint8; `seeds`, (N,), int64; `labels`, (N,), int64, if there are any; and
    `metadata`, (N,), the rows of metadata.jsonl as text."""
    columns: dict[str, list[Any]] = {"seeds": [], "labels": [], "metadata": []}
    with written(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(zipfile.ZipInfo("images.npy"), "w", force_zip64=True) as file:
            for batch in batches:
                pixels = _as_stored(batch.images)
                if not columns["seeds"]:
                    header = {"descr": "|u1", "fortran_order": False, "shape": (num_images, *pixels.shape[1:])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(pixels.tobytes())
                columns["seeds"] += [row["seed"] for row in batch.rows]
                columns["labels"] += [row["label"] for row in batch.rows if row["label"] is not None]
                columns["metadata"] += [json.dumps(row) for row in batch.rows]
        for name, values in columns.items():
            if values:
                array = np.array(values, dtype=None if name == "metadata" else np.int64)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), npy_of(array))
        archive.comment = json.dumps(settings).encode()


def npy_of(array: np.ndarray) -> bytes:
    """An array as the bytes of an NPY file."""
    packed = io.BytesIO()
    np.save(packed, array)
    return packed.getvalue()


def save_parquet(path: Path, batches: Batches, settings: Settings) -> None:
    """`image`, which `datasets` loads as its Image feature; `seed`; `label`, if there are any; and `metadata`, the row
    of metadata.jsonl as text. A row group a batch."""
    from datasets import Value

    given = iter(batches)
    first = next(given)
    names = ["seed"] + (["label"] if first.rows[0]["label"] is not None else [])
    columns = {**{name: Value("int64") for name in names}, "metadata": Value("string")}
    told = (
        Batch(batch.images, [{**row, "metadata": json.dumps(row)} for row in batch.rows])
        for batch in itertools.chain([first], given)
    )
    save_table(path, told, columns, settings)


def save_table(path: Path, batches: Batches, columns: dict[str, Any], settings: Settings) -> None:
    """A Parquet file of `image` and these columns (kinds as `datasets` has them) of the rows. A row group a batch."""
    import pyarrow
    from datasets import Features, Image
    from pyarrow import parquet

    schema = Features({"image": Image(), **columns}).arrow_schema
    schema = schema.with_metadata({**schema.metadata, b"fastddpm": json.dumps(settings).encode()})
    with written(path) as temporary, parquet.ParquetWriter(temporary, schema, write_page_checksum=True) as writer:
        for batch in batches:
            images = [
                {"bytes": png_of(image), "path": row["file_name"]}
                for image, row in zip(batch.images, batch.rows, strict=True)
            ]
            values = {name: [row.get(name) for row in batch.rows] for name in columns}
            if images:
                writer.write_table(pyarrow.table({"image": images, **values}, schema=schema))


def is_whole_table(path: Path) -> bool:
    """True if a Parquet file can be read to its end, and its checksums agree."""
    from pyarrow import parquet

    try:
        parquet.read_table(path, page_checksum_verification=True)
    except (ValueError, OSError):
        return False
    return True


def save_source(path: Path, images: np.ndarray, **others: Any) -> None:
    """Images, (N, C, H, W), uint8, and other arrays as an NPZ file that is a `data.source`."""
    with written(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=_as_stored(images), **others)


def images_in(path: Path, names: list[str]) -> np.ndarray:
    """The images of a finished folder (of these files, or of shards), NPZ or Parquet file: (N, C, H, W), uint8."""
    if path.is_dir() and (path / names[0]).exists():
        pixels = np.stack([np.asarray(open_file(path / name)) for name in names])
    elif path.suffix.lower() == ".npz":
        pixels = np.load(path)["images"]
    else:
        from pyarrow import parquet

        files = parquet.read_table(path, columns=["image"]).column("image").to_pylist()
        pixels = np.stack([np.asarray(open_bytes(file["bytes"])) for file in files])
    return pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)


def settings_in(path: Path) -> Settings | None:
    """The settings that a finished NPZ or Parquet file, or a folder, was drawn with; None: it does not say."""
    try:
        if path.is_dir():
            return json.loads((path / SETTINGS_NAME).read_text())
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.comment)
        from pyarrow import parquet

        return json.loads(parquet.read_schema(path).metadata[b"fastddpm"])
    except (ValueError, KeyError, TypeError, FileNotFoundError, zipfile.BadZipFile):
        return None


def _as_stored(images: np.ndarray) -> np.ndarray:
    """(B, H, W) of one channel, (B, H, W, C) of more."""
    return images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
