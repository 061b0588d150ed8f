"""Outputs while samples are drawn: micro-batch by micro-batch to disk, by any process, so that none is lost.

A folder takes its images as they are drawn. A file is put together at the end from parts beside it, each an NPY file of
a micro-batch with its SHA-256 at the end; a shard by the process that drew it, once it has all of its images.
`.sample.json` among the parts says what is drawn; parts of other settings are never mixed with.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from fastddpm.data.opening import is_whole_png
from fastddpm.files import place_of_lock, remove, sync_all, write_bytes, write_json
from fastddpm.process import dealt, micro_batch
from fastddpm.verbs.sample import formats
from fastddpm.verbs.sample.formats import SETTINGS_NAME, Batch, Settings
from fastddpm.verbs.sample.series import Series

HASH_BYTES = 32


class Output(ABC):
    """A series of images on its way to `out`; `settings` decide whether what is there belongs to it."""

    def __init__(self, out: Path, series: Series, settings: Settings):
        self.out, self.series, self.settings = out, series, settings
        self.note = ""
        """end of the last line on the console, once it is finished"""

    @property
    @abstractmethod
    def parts(self) -> Path:
        """The folder of what is not finished."""

    def share(self, rank: int, num_processes: int) -> Iterable[int]:
        """The micro-batches that a process draws."""
        return dealt(self.series.num_images, self.series.micro_batch_size, rank, num_processes)

    @abstractmethod
    def done(self) -> set[int]:
        """The micro-batches that are on the disk."""

    @abstractmethod
    def remove_damaged(self) -> int:
        """Remove what an earlier job left damaged, as a machine without power may; returns how many that were."""

    @abstractmethod
    def put(self, index: int, images: np.ndarray) -> None:
        """Write a micro-batch: (B, C, H, W), uint8."""

    @abstractmethod
    def assemble(self) -> None:
        """Make what was asked for of the micro-batches, which are all there."""

    def is_finished(self) -> bool:
        """True if `out` holds these very images already: its settings are written last."""
        return self.out.exists() and formats.settings_in(self.out) == _plain(self.settings)

    def claim(self) -> None:
        """Take the output for this job, on one process.

        Raises: ValueError: what lies there was drawn with other settings, or by others.
        """
        found = _read(self.parts / SETTINGS_NAME)
        if found is None and self._is_taken():
            found = formats.settings_in(self.out)
            if found is None:
                raise ValueError(f"{self.out} holds something else; choose another --out, or remove it")
        if found is not None:
            self._check_same(found)
        write_json(self.parts / SETTINGS_NAME, self.settings)

    def check_claimed(self) -> None:
        """Every process sees the claim of the main one.  Raises: ValueError: it does not, or has other settings."""
        found = _read(self.parts / SETTINGS_NAME)
        if found is None:
            raise ValueError(
                f"{self.parts} is not there on every machine; put --out on a folder that all of them share"
            )
        self._check_same(found)

    def finish(self) -> None:
        """Make what was asked for, if it is not there, and remove the parts."""
        if not self.is_finished():
            self.assemble()
        remove(self.parts)

    def _is_taken(self) -> bool:
        return self.out.exists()

    def _check_same(self, found: Settings) -> None:
        now = _plain(self.settings)
        changed = [name for name in {**now, **found} if found.get(name) != now.get(name)]
        if changed:
            listed = "; ".join(f"{name} was {found.get(name)!r}, now {now.get(name)!r}" for name in changed)
            raise ValueError(
                f"{self.out} holds images drawn with other settings: {listed}; go on with those, choose another --out, "
                f"or remove {self.out} and {self.parts}"
            )


class Folder(Output):
    """A PNG an image, named by its seed, and metadata.jsonl."""

    @property
    def parts(self) -> Path:
        return self.out / ".parts"

    def done(self) -> set[int]:
        names = {entry.name for entry in os.scandir(self.out)}
        every = range(self.series.num_micro_batches)
        return {m for m in every if all(row["file_name"] in names for row in self._rows(m))}

    def remove_damaged(self) -> int:
        return _remove_unless(is_whole_png, self.out.glob("*.png"))

    def put(self, index: int, images: np.ndarray) -> None:
        formats.save_pngs(self.out, Batch(images, self._rows(index)))

    def assemble(self) -> None:
        sync_all(self.out)
        formats.save_metadata(self.out, (self.series.row(place) for place in range(self.series.num_images)))
        write_json(self.out / SETTINGS_NAME, self.settings)

    def _rows(self, index: int) -> list[dict[str, Any]]:
        return [self.series.row(place) for place in self.series.places(index)]

    def _is_taken(self) -> bool:
        return _holds_others(self.out, self.parts)


class File(Output):
    """One file, put together from parts beside it."""

    @property
    def parts(self) -> Path:
        return self.out.with_name(f".{self.out.name}.parts")

    def done(self) -> set[int]:
        return {int(entry.name[:-4]) for entry in os.scandir(self.parts) if entry.name[:-4].isdigit()}

    def remove_damaged(self) -> int:
        return _remove_unless(_ends_with_its_hash, self.parts.glob("[0-9]*.npy"))

    def put(self, index: int, images: np.ndarray) -> None:
        content = formats.npy_of(images)
        write_bytes(self._part(index), content + sha256(content).digest())

    def assemble(self) -> None:
        batches = self._batches(range(self.series.num_micro_batches))
        if self._is_grid():
            self.series.save_figure(np.concatenate([batch.images for batch in batches]), self.out)
        else:
            formats.save_file(self.out, batches, self.series.num_images, self.settings)

    def is_finished(self) -> bool:
        return not self._is_grid() and super().is_finished()

    def _is_taken(self) -> bool:
        return self.out.exists() and not self._is_grid()  # a grid is drawn over

    def _is_grid(self) -> bool:
        return self.out.suffix.lower() == ".png"

    def _part(self, index: int) -> Path:
        return self.parts / f"{index:09d}.npy"

    def _batches(self, indices: Iterable[int]) -> Iterator[Batch]:
        for index in indices:
            rows = [self.series.row(place) for place in self.series.places(index)]
            yield Batch(np.load(self._part(index)), rows)


class Shards(File):
    """A folder of Parquet files of `shard_size` images, a multiple of the micro-batch; which images a file holds does
    not depend on the number of processes."""

    @property
    def parts(self) -> Path:
        return self.out / ".parts"

    @property
    def num_shards(self) -> int:
        return -(-self.series.num_images // self.settings["shard_size"])

    def share(self, rank: int, num_processes: int) -> Iterable[int]:
        for shard in dealt(self.series.num_images, self.settings["shard_size"], rank, num_processes):
            yield from self._micro_batches(shard)

    def done(self) -> set[int]:
        names = {entry.name for entry in os.scandir(self.out)}
        whole = (shard for shard in range(self.num_shards) if self._place(shard).name in names)
        return super().done().union(*map(self._micro_batches, whole))

    def remove_damaged(self) -> int:
        damaged = _remove_unless(formats.is_whole_table, self.out.glob("part-*.parquet"))
        return damaged + super().remove_damaged()

    def put(self, index: int, images: np.ndarray) -> None:
        super().put(index, images)
        shard = index // self._num_in_shard
        if all(self._part(each).exists() for each in reversed(self._micro_batches(shard))):
            self._save(shard)

    def assemble(self) -> None:
        for shard in range(self.num_shards):
            if not self._place(shard).exists():  # killed when all parts were there
                self._save(shard)
        write_json(self.out / SETTINGS_NAME, self.settings)

    def _save(self, shard: int) -> None:
        indices = self._micro_batches(shard)
        formats.save_parquet(self._place(shard), self._batches(indices), self.settings)
        for index in indices:
            remove(self._part(index))

    @property
    def _num_in_shard(self) -> int:
        return max(1, self.settings["shard_size"] // self.series.micro_batch_size)

    def _micro_batches(self, shard: int) -> range:
        return micro_batch(shard, self.series.num_micro_batches, self._num_in_shard)

    def _place(self, shard: int) -> Path:
        return self.out / f"part-{shard:05d}-of-{self.num_shards:05d}.parquet"

    def _is_taken(self) -> bool:
        return _holds_others(self.out, self.parts)


def save_figure(output: Output, path: Path) -> None:
    """Draw the finished images of an output as one picture."""
    rows = [output.series.row(place) for place in range(output.series.num_images)]
    output.series.save_figure(formats.images_in(output.out, [row["file_name"] for row in rows]), path)


def output_of(out: Path, series: Series, settings: Settings) -> Output:
    """A file by its ending, else a folder: of shards if the settings have a `shard_size`.

    Raises: ValueError: an ending that is no format's, or more images than a grid is for.
    """
    if "shard_size" in settings:
        return Shards(out, series, settings)
    kind = formats.kind_of(out, series.num_images, series.image_shape)
    return Folder(out, series, settings) if kind == formats.FOLDER else File(out, series, settings)


def _holds_others(folder: Path, parts: Path) -> bool:
    if not folder.is_dir():
        return folder.exists()
    ours = (parts.name, place_of_lock(folder).name)  # of a job killed before it said what is drawn
    return any(path.name not in ours for path in folder.iterdir())


def _remove_unless(is_whole: Callable[[Path], bool], paths: Iterable[Path]) -> int:
    damaged = [path for path in paths if not is_whole(path)]
    for path in damaged:
        remove(path)
    return len(damaged)


def _ends_with_its_hash(path: Path) -> bool:
    content = path.read_bytes()
    return sha256(content[:-HASH_BYTES]).digest() == content[-HASH_BYTES:]


def _read(path: Path) -> Settings | None:
    return json.loads(path.read_text()) if path.exists() else None


def _plain(settings: Settings) -> Settings:
    return json.loads(json.dumps(settings))
