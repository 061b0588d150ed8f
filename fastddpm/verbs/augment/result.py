"""Result of an augmentation, drawn, filtered and written: class folders or Parquet, counts and a contact sheet."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from fastddpm.files import put, remove, write_json
from fastddpm.process import say
from fastddpm.verbs.augment.augmentations import Augmentations
from fastddpm.verbs.augment.filters import REASONS
from fastddpm.verbs.augment.sheet import Sheet
from fastddpm.verbs.sample import formats
from fastddpm.verbs.sample.formats import SETTINGS_NAME, Batch, Settings
from fastddpm.verbs.sample.outputs import File


class Unbalanced(SystemExit):
    """End of a command whose result is whole, but lacks a class that was to be balanced."""


def record_of(out: Path) -> Path:
    """Counts, settings, and what was looked at: beside `out`, where `datasets` does not read it."""
    return _beside(out, ".json")


def check_balanced(out: Path) -> None:
    """Raises: Unbalanced: code 1, said on stderr: a class of which the filters left nothing."""
    counts = json.loads(record_of(out).read_text())["counts_by_class"]
    if lost := [name for name, of in counts.items() if of["drawn"] and not of["kept"]]:
        some = ", ".join(lost[:5]) + (", ..." if len(lost) > 5 else "")
        say(
            PartialState(), f"not balanced: the filters left none of {some}; see {_beside(out, '.png')}, and use others"
        )
        raise Unbalanced(1)


def _beside(out: Path, ending: str) -> Path:
    name = out.stem if out.suffix.lower() == ".parquet" else out.name
    return out.with_name(name + ending)


class Augmented(File):
    """Micro-batches are kept beside `out` until all are drawn; then they are filtered and written, in one move."""

    series: Augmentations

    @property
    def record(self) -> Path:
        """See `record_of`."""
        return record_of(self.out)

    @property
    def sheet(self) -> Path:
        """The contact sheet, beside `out`."""
        return _beside(self.out, ".png")

    def claim(self) -> None:
        if not self.parts.exists() and not self._is_taken():
            for path in (self.record, self.sheet):
                if path.exists():
                    raise ValueError(
                        f"{path} is there already, and would be written over; move it away, or choose another --out"
                    )
        super().claim()

    def assemble(self) -> None:
        """Raises: ValueError: no image is left; the record and the sheet show why."""
        tally, sheet = Counts(self.series), Sheet(self.series)
        kept = self._looked_at(tally, sheet)
        if self.out.suffix.lower() == ".parquet":
            made = self.parts / "made.parquet"
            formats.save_table(made, kept, _columns_of(self.series), self.settings)
        else:
            made = self.parts / "made"
            remove(made)  # of a process that was killed
            save_class_folders(made, kept, self.settings)
        sheet.save(self.sheet)
        write_json(self.record, {**tally.row(), **self.series.compared, "settings": self.settings})
        self.note = f", {tally.num_kept:,} kept"
        print("\n".join([*tally.lines(), f"counts: {self.record}  contact sheet: {self.sheet}"]), flush=True)
        if not tally.num_kept:
            raise ValueError(
                f"the filters leave none of {len(self.series.plan):,} images; see {self.sheet}, remove {self.parts}, "
                f"{self.record} and {self.sheet}, and use other filters, or other --start_timesteps"
            )
        put(made, self.out)

    def _looked_at(self, tally: "Counts", sheet: Sheet) -> Iterator[Batch]:
        """The images that are kept, micro-batch by micro-batch."""
        indices = range(self.series.num_micro_batches)
        for batch, index in zip(self._batches(indices), indices, strict=True):
            places = list(self.series.places(index))
            shares = [list(self.series.soft_label(place)) for place in places]
            seen = self.series.filters.look(batch.images, [x[0] for x in shares], [x[-1] for x in shares])
            for place, image, row, found in zip(places, batch.images, batch.rows, seen, strict=True):
                tally.add(self.series.label_of(place), found.reason)
                sheet.add(place, image, found)
                row |= {"source_distances": self._distances(place, image), **found.row}
            keep = [i for i, found in enumerate(seen) if found.reason is None]
            yield Batch(batch.images[keep], [batch.rows[i] for i in keep])

    def _distances(self, place: int, image: np.ndarray) -> list[float]:
        """Distance to each source: the root of the mean square difference, in grey levels."""
        sources = self.series.data.images[self.series.source_images(place)]
        return [round(float(np.sqrt(np.square(image - other.astype(np.float64)).mean())), 3) for other in sources]

    def _is_taken(self) -> bool:
        return self.out.exists() and not (self.out.is_dir() and not any(self.out.iterdir()))


class Counts:
    """Counts of images kept and dropped, by reason and by class."""

    def __init__(self, series: Augmentations):
        self._names = series.data.label_names
        self._counts: defaultdict[int, Counter[str]] = defaultdict(Counter)

    def add(self, label: int, reason: str | None) -> None:
        """Count an image of a label, and why it is dropped."""
        self._counts[label][reason or "kept"] += 1

    @property
    def num_kept(self) -> int:
        """Number of images kept, of all classes."""
        return sum(of["kept"] for of in self._counts.values())

    def row(self) -> dict[str, Any]:
        """Plain JSON values."""
        by_class = {self._names[label]: _listed(of) for label, of in sorted(self._counts.items())}
        return {"counts": _listed(sum(self._counts.values(), Counter())), "counts_by_class": by_class}

    def lines(self) -> list[str]:
        """The same to read: only what there is something of."""
        found = self.row()
        columns = [name for name in ("drawn", "kept", *REASONS) if found["counts"][name] or name == "kept"]
        wide = max(len(name) for name in ("all", *found["counts_by_class"]))
        rows = {**found["counts_by_class"], "all": found["counts"]}
        return [
            " ".join([" " * wide, *(f"{name.replace('_', ' '):>10}" for name in columns)]),
            *(" ".join([f"{name:>{wide}}", *(f"{row[key]:>10,}" for key in columns)]) for name, row in rows.items()),
        ]


def _listed(counts: Counter[str]) -> dict[str, int]:
    return {"drawn": counts.total(), **{name: counts[name] for name in ("kept", *REASONS)}}


def save_class_folders(folder: Path, batches: Iterator[Batch], settings: Settings) -> None:
    """A PNG an image in the folder of its label, and metadata.jsonl, as `datasets` reads both."""
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for batch in batches:
        for row in batch.rows:
            (folder / row["file_name"]).parent.mkdir(exist_ok=True)
        formats.save_pngs(folder, batch)
        rows += batch.rows
    formats.save_metadata(folder, rows)
    write_json(folder / SETTINGS_NAME, settings)


def _columns_of(series: Augmentations) -> dict[str, Any]:
    """Columns of a Parquet file: `label` with the names of the classes, and every entry of metadata.jsonl."""
    from datasets import ClassLabel, Sequence, Value

    kinds = {
        "label": ClassLabel(names=list(series.data.label_names)),
        "label_name": Value("string"),
        "soft_label": Sequence(Value("float64")),
        "box": Sequence(Value("int64")),
        "sources": Sequence(Value("string")),
        "source_distances": Sequence(Value("float64")),
        "start_timestep": Value("int64"),
        "seed": Value("int64"),
        "nearest_distance": Value("float64"),
        "nearest_closeness": Value("float64"),
        "label_probability": Value("float64"),
        "file_name": Value("string"),
        "model": Value("string"),
        "scheduler": Value("string"),
        "steps": Value("int64"),
        "guidance": Value("float64"),
        "precision": Value("string"),
    }
    left_out = ("soft_label", "box") if series.plan.boxes is None else ()
    return {name: kind for name, kind in kinds.items() if name not in left_out}
