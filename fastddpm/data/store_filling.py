"""A store on its way: filled chunk by chunk, so that a killed process's work is kept.

journal.jsonl    the facts it was begun with, then one line per chunk; what has no line yet counts for nothing
images.npy, hashes.bin, labels.bin, duplicates.bin, names.bin, names_of_copies.bin    grow with it, and are cut back to
it when work goes on
"""

import io
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fastddpm.data.decode import Header
from fastddpm.data.store import HASH_BYTES, NAMES, image_hash, packed
from fastddpm.files import write_text

_JOURNAL = "journal.jsonl"
_NO_LABEL = -1
_log = logging.getLogger(__name__)


class Refused(NamedTuple):
    """A picture that cannot be used: no exception, whose traceback would hold all that was decoded of it."""

    place: int
    """place in its split"""
    name: str
    reason: str


@dataclass
class Tally:
    """Tally of the first pictures of a split."""

    count: int = 0
    """pictures gone through, good or bad"""
    num_colour: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    """Pillow's names, of the good ones"""
    sizes: Counter[str] = field(default_factory=Counter)
    """such as 178x218, of the good ones"""
    bad: list[Refused] = field(default_factory=list)
    profiles: Counter[str] = field(default_factory=Counter)
    """names of colour profiles and what became of them, of the good ones"""
    num_gray: int = 0
    """stored pictures with three equal channels"""

    @property
    def num_good(self) -> int:
        """Pictures that can be used."""
        return self.modes.total()

    def note(self, header: Header, count: int = 1) -> None:
        """Count good pictures."""
        self.num_colour += header.is_colour * count
        self.modes[header.mode] += count
        self.sizes["{}x{}".format(*header.size)] += count
        self.profiles.update([header.profile] * count if header.profile else ())

    def add(self, other: "Tally") -> None:
        """Take over another one's counts."""
        for name, counts in vars(other).items():
            setattr(self, name, getattr(self, name) + counts)

    @classmethod
    def sum(cls, tallies: Iterable["Tally"]) -> "Tally":
        """Tally of several splits."""
        total = cls()
        for tally in tallies:
            total.add(tally)
        return total

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Tally":
        """The inverse of `vars`, through JSON."""
        counters = {name: Counter(values[name]) for name in ("modes", "sizes", "profiles")}
        return cls(values["count"], values["num_colour"], **counters, bad=[Refused(*bad) for bad in values["bad"]],
                   num_gray=values.get("num_gray", 0))  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """A picture as it is stored."""

    pixels: np.ndarray
    """(C, H, W), uint8"""
    digest: bytes
    """`image_hash` of the pixels"""
    label: int | None
    header: Header
    name: str
    group: str | None
    """see `Picture`"""

    @property
    def is_gray(self) -> bool:
        """Three channels hold the same."""
        return len(self.pixels) == 3 and all(np.array_equal(self.pixels[0], other) for other in self.pixels[1:])


class Part:
    """The folder that becomes a store.

    Args:
        folder: `<key>.part`; taken up again if it was begun with the same facts, else emptied.
        facts: plain JSON values that decide what is stored: source, its stamps, settings, splits.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]):
        self.folder = folder
        self._begin(facts)
        if not self._take_up(facts):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            self._begin(facts)
            self._journal({"facts": facts})

    def _begin(self, facts: Mapping[str, Any]) -> None:
        self.checked: dict[str, Tally] = {name: Tally() for name in facts["splits"]}
        self.read: dict[str, Tally] = {name: Tally() for name in facts["splits"]}
        self.num_images: dict[str, int] = dict.fromkeys(facts["splits"], 0)
        """stored so far, of each split"""
        self.image_shape: tuple[int, int, int] | None = None
        self.images_of_label: dict[int, int] = {}
        """copies included; known at the end, as is the next"""
        self.num_label_conflicts = 0
        """copies whose label is another one than that of the image"""
        self.no_labels: str | None = None
        """reason that labels of some images are left alone"""
        self._index_of: dict[bytes, int] = {}
        self._num_duplicates = 0
        self._name_bytes = [0, 0]
        """lengths of names.bin and names_of_copies.bin"""
        self._files: dict[str, BinaryIO] = {}

    def note_checked(self, split: str, tally: Tally) -> None:
        """Keep what the headers of further pictures said."""
        self.checked[split].add(tally)
        self._journal({"checked": split, **vars(tally)})

    def set_shape(self, image_shape: tuple[int, int, int]) -> None:
        """Decide on (C, H, W) of all stored images; once."""
        self.image_shape = image_shape
        self._journal({"image_shape": image_shape})
        self._open()

    def holds(self, digest: bytes) -> bool:
        """True for an image that is stored already."""
        return digest in self._index_of

    def append(self, split: str, tally: Tally, frames: Sequence[Frame]) -> None:
        """Store the good ones of further pictures; an image that is there already is noted as a duplicate."""
        splits = list(self.read)
        new_images = 0
        for frame in frames:
            label = _NO_LABEL if frame.label is None else frame.label
            index = self._index_of.get(frame.digest)
            if index is None:
                self._index_of[frame.digest] = len(self._index_of)
                new_images += 1
                self._files["images.npy"].write(np.ascontiguousarray(frame.pixels).data)
                self._files["hashes.bin"].write(frame.digest)
                self._files["labels.bin"].write(np.int64(label).tobytes())
                self._name_bytes[0] += self._files["names.bin"].write(_line_of(frame))
            else:
                self._num_duplicates += 1
                self._files["duplicates.bin"].write(np.array([index, label, splits.index(split)]).tobytes())
                self._name_bytes[1] += self._files["names_of_copies.bin"].write(_line_of(frame))
        for file in self._files.values():
            file.flush()
        self.num_images[split] += new_images
        self.read[split].add(tally)
        self._journal({"read": split, "new": new_images, "duplicates": self._num_duplicates, "names": self._name_bytes,
                       **vars(tally)})  # fmt: skip

    def put(self, name: str, array: np.ndarray) -> None:
        """Add a file to the store."""
        np.save(self.folder / name, array)

    def finish(self) -> None:
        """Write the arrays of a store; labels only if every image has one."""
        total = sum(self.num_images.values())
        assert self.image_shape is not None
        file = self._files["images.npy"]
        file.seek(0)
        _write_header(file, (total, *self.image_shape))  # as long as before: numpy leaves room for the first axis
        for opened in self._files.values():
            opened.close()
        hashes = np.fromfile(self.folder / "hashes.bin", np.uint8).reshape(-1, HASH_BYTES)
        labels = np.fromfile(self.folder / "labels.bin", np.int64)
        duplicates = np.fromfile(self.folder / "duplicates.bin", np.int64).reshape(-1, 3)
        unlabelled = int((labels == _NO_LABEL).sum() + (duplicates[:, 1] == _NO_LABEL).sum())
        if 0 < unlabelled < total + len(duplicates):
            self.no_labels = f"{unlabelled} of {total + len(duplicates)} images have none, or one that is no class"
        np.save(self.folder / "hashes.npy", hashes)
        np.save(self.folder / "duplicates.npy", duplicates)
        names = b"".join((self.folder / name).read_bytes() for name in ("names.bin", "names_of_copies.bin"))
        np.save(self.folder / NAMES, packed(names))
        if not unlabelled:
            np.save(self.folder / "labels.npy", labels)
            counts = np.bincount(np.concatenate([labels, duplicates[:, 1]]))
            self.images_of_label = {label: int(count) for label, count in enumerate(counts)}
            self.num_label_conflicts = int((labels[duplicates[:, 0]] != duplicates[:, 1]).sum())

    def close(self) -> None:
        """Let go of the files; what was appended stays for another time."""
        for file in self._files.values():
            file.close()

    def _journal(self, line: Mapping[str, Any]) -> None:
        with (self.folder / _JOURNAL).open("a") as file:
            file.write(json.dumps(line) + "\n")

    # -------------------------------------------------------------------------------------- taking up again

    def _take_up(self, facts: Mapping[str, Any]) -> bool:
        """Go on where a killed process stopped; False: it was about something else, or its files are damaged."""
        lines = _whole_lines(self.folder / _JOURNAL)
        if not lines or lines[0] != json.loads(json.dumps({"facts": facts})):
            return False
        write_text(self.folder / _JOURNAL, "".join(json.dumps(line) + "\n" for line in lines))  # without a torn one
        for line in lines[1:]:
            self._take_line(line)
        if self.image_shape is not None:
            with suppress(OSError, ValueError):
                self._open()
                return self._cut_back()
            return False
        return True

    def _take_line(self, line: Mapping[str, Any]) -> None:
        if "image_shape" in line:
            self.image_shape = tuple(line["image_shape"])
        elif "checked" in line:
            self.checked[line["checked"]].add(Tally.from_json(line))
        else:
            self.read[line["read"]].add(Tally.from_json(line))
            self.num_images[line["read"]] += line["new"]
            self._num_duplicates, self._name_bytes = line["duplicates"], line["names"]

    def _cut_back(self) -> bool:
        """Drop what no line of the journal speaks of; False if what it speaks of is not there."""
        assert self.image_shape is not None
        _write_header(header := io.BytesIO(), (0, *self.image_shape))
        total, start = sum(self.num_images.values()), len(header.getvalue())
        frame_bytes = int(np.prod(self.image_shape))
        sizes = {
            "images.npy": start + total * frame_bytes, "hashes.bin": total * HASH_BYTES, "labels.bin": total * 8,
            "duplicates.bin": self._num_duplicates * 24, "names.bin": self._name_bytes[0],
            "names_of_copies.bin": self._name_bytes[1],
        }  # fmt: skip
        for name, size in sizes.items():
            if (self.folder / name).stat().st_size < size:
                return False
            self._files[name].truncate(size)
            self._files[name].seek(size)
        hashes = (self.folder / "hashes.bin").read_bytes()
        digests = [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]
        self._index_of = {digest: index for index, digest in enumerate(digests)}
        if not total:
            return True
        images = np.memmap(self.folder / "images.npy", np.uint8, "r", start, (total, frame_bytes))
        _log.warning("going on with %d images that were read in before", total)
        return all(image_hash(image) == digest for image, digest in zip(images, digests, strict=True))

    def _open(self) -> None:
        assert self.image_shape is not None
        for name in ("images.npy", "hashes.bin", "labels.bin", "duplicates.bin", "names.bin", "names_of_copies.bin"):
            path = self.folder / name
            path.touch()
            self._files[name] = path.open("r+b")
        if not (self.folder / "images.npy").stat().st_size:
            _write_header(self._files["images.npy"], (0, *self.image_shape))


def _line_of(frame: Frame) -> bytes:
    parts = [frame.name] if frame.group is None else [frame.name, frame.group]
    return "\t".join(" ".join(part.split()) for part in parts).encode("utf-8", "backslashreplace") + b"\n"


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    with suppress(OSError, ValueError):  # a torn last line, or no journal
        for line in path.read_text().splitlines():
            lines.append(json.loads(line))
    return lines


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
