"""Reading of pictures into stored frames, on all cores, chunk by chunk."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from fastddpm.data.decode import Header, decode, inspect
from fastddpm.data.fit import Fit
from fastddpm.data.meaning import Meaning
from fastddpm.data.opening import BadImage
from fastddpm.data.sources import Picture, Pictures
from fastddpm.data.store import image_hash
from fastddpm.data.store_filling import Frame, Part, Refused, Tally
from fastddpm.progress import progress_bar

_CHUNK = 1024
_GROUP = 32
"""pictures a thread takes at a time"""
_CHUNK_BYTES = 128 * 2**20
"""decoded images that wait for their turn; two chunks are on their way at a time"""
_NUM_LISTED = 20
_Result = TypeVar("_Result", Frame, Header)
_Made = TypeVar("_Made")


@dataclass
class Reading:
    """Pictures on their way into a store; both passes go on where an earlier process stopped."""

    part: Part
    pictures: Mapping[str, Pictures]
    """pictures by split, in the order of the store"""
    bar: tqdm
    limit: int | None = None
    """images to take of each split, each counted once; None: all"""

    def check(self, meaning: Meaning) -> None:
        """Look at every header."""
        self._start_bar("checking", self.part.checked)
        for split, pictures in self.pictures.items():
            if pictures.header is not None:
                if self.part.checked[split].count < (count := pictures.count or 0):
                    tally = Tally(count)
                    tally.note(pictures.header, count)
                    self.part.note_checked(split, tally)
                continue
            for results in self._attempts(
                pictures, self.part.checked[split].count, _CHUNK, lambda _, of: inspect(of.open, meaning)
            ):
                tally = Tally(len(results), bad=[header for header in results if isinstance(header, Refused)])
                for header in results:
                    if not isinstance(header, Refused):
                        tally.note(header)
                self.part.note_checked(split, tally)

    def read(self, fit: Fit, image_shape: tuple[int, int, int]) -> None:
        """Decode and store."""
        if self.part.image_shape is None:
            self.part.set_shape(image_shape)
        self._start_bar("reading in", self.part.read)
        size = int(np.clip(_CHUNK_BYTES // np.prod(image_shape), 16, _CHUNK))
        for split, pictures in self.pictures.items():
            checked, done = self.part.checked[split], self.part.read[split]
            work = _framing(fit, image_shape, {bad.place: bad.reason for bad in checked.bad}, bool(checked.count))
            for results in self._attempts(pictures, done.count, size, work):
                self._store(split, results)
                if self.limit is not None and self.part.num_images[split] >= self.limit:
                    break

    def _store(self, split: str, results: list[Frame | Refused]) -> None:
        tally = Tally()
        frames: list[Frame] = []
        new: set[bytes] = set()
        for frame in results:
            if self.limit is not None and self.part.num_images[split] + len(new) >= self.limit:
                break
            tally.count += 1
            if isinstance(frame, Refused):
                tally.bad.append(frame)
                continue
            tally.note(frame.header)
            tally.num_gray += frame.is_gray
            frames.append(frame)
            if not self.part.holds(frame.digest):
                new.add(frame.digest)
        self.part.append(split, tally, frames)

    def _start_bar(self, title: str, tallies: Mapping[str, Tally]) -> None:
        counts = [pictures.count for pictures in self.pictures.values()]
        self.bar.reset(total=None if None in counts else sum(count or 0 for count in counts))
        self.bar.set_description(title)
        self.bar.update(sum(tally.count for tally in tallies.values()))

    def _attempts(
        self, pictures: Pictures, first: int, size: int, work: Callable[[int, Picture], _Result]
    ) -> Iterator[list[_Result | Refused]]:
        """Do it for each picture in threads (Pillow releases the GIL), the next chunk meanwhile."""

        def attempt(place: int, picture: Picture) -> _Result | Refused:
            try:
                return work(place, picture)
            except BadImage as error:
                return Refused(place, picture.name, str(error))

        numbered = enumerate(pictures.start_at(first), start=first)
        waiting: deque[Iterator[list[_Result | Refused]]] = deque()
        with ThreadPoolExecutor() as pool:
            while True:
                if chunk := list(islice(numbered, size)):
                    groups = [chunk[at : at + _GROUP] for at in range(0, len(chunk), _GROUP)]
                    waiting.append(pool.map(lambda group: [attempt(*picture) for picture in group], groups))
                if not waiting:
                    return
                if len(waiting) == 2 or not chunk:
                    results = []
                    for done in waiting.popleft():
                        self.bar.update(len(done))
                        results += done
                    yield results


def _as_it_is(picture: Picture, fit: Fit) -> tuple[np.ndarray, Header] | None:
    """The pixels of an array, where nothing is to be done to them."""
    if picture.pixels is None or fit.size is not None or fit.center_crop is not None:
        return None
    pixels = picture.pixels[None] if picture.pixels.ndim == 2 else picture.pixels.transpose(2, 0, 1)
    channels, height, width = pixels.shape
    if channels != fit.channels:
        return None
    mode = "L" if channels == 1 else "RGB"
    return np.array(pixels), Header(mode, channels == 3, (width, height))


def _framing(
    fit: Fit, image_shape: tuple[int, int, int], known_bad: Mapping[int, str], is_checked: bool
) -> Callable[[int, Picture], Frame]:
    def work(place: int, picture: Picture) -> Frame:
        if place in known_bad:
            raise BadImage(known_bad[place])
        if not is_checked and picture.pixels is None:
            inspect(picture.open, fit.meaning)
        pixels, header = _as_it_is(picture, fit) or decode(picture.open, fit)
        if pixels.shape != image_shape:
            raise BadImage(f"is {pixels.shape[2]}x{pixels.shape[1]}, unlike its header; set data.image_size")
        return Frame(pixels, image_hash(pixels), picture.label, header, picture.name, picture.group)

    return work


def each_picture(word: str, pictures: Sequence[Picture], work: Callable[[Picture], _Made]) -> list[_Made]:
    """Do it for each picture in threads.  Raises: ValueError: names those that cannot be used."""

    def attempt(picture: Picture) -> _Made | str:
        try:
            return work(picture)
        except BadImage as error:
            return f"{picture.name} {error}"

    with ThreadPoolExecutor() as pool:
        found = list(progress_bar(pool.map(attempt, pictures), "reading", total=len(pictures), delay=2, unit="image"))
    bad = [reason for reason in found if isinstance(reason, str)]
    if len(bad) == 1:
        raise ValueError(bad[0])
    if bad:
        rest = [f"... and {len(bad) - _NUM_LISTED} more"] if len(bad) > _NUM_LISTED else []
        listed = "\n  ".join([*bad[:_NUM_LISTED], *rest])
        raise ValueError(f"{len(bad)} pictures of {word} cannot be used:\n  {listed}\nmend or remove them")
    return [result for result in found if not isinstance(result, str)]
