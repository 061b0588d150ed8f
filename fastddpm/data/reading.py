"""Reading of pictures into stored frames, on all cores, chunk by chunk."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
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

_CHUNK = 1024
_GROUP = 16
"""pictures a thread takes at a time"""
_CHUNK_BYTES = 128 * 2**20
"""decoded images that wait for their turn; two chunks are on their way at a time"""
_Result = TypeVar("_Result", Frame, Header)


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
        look = partial(_header, meaning)
        self._start_bar("checking", self.part.checked)
        for split, pictures in self.pictures.items():
            if pictures.header is not None:
                self._note_all_alike(split, pictures.header, pictures.count or 0)
                continue
            for results in self._attempts(pictures, self.part.checked[split].count, _CHUNK, look):
                tally = Tally(len(results))
                for header in results:
                    if isinstance(header, Refused):
                        tally.bad.append(header)
                    else:
                        tally.note(header)
                self.part.note_checked(split, tally)

    def _note_all_alike(self, split: str, header: Header, count: int) -> None:
        if self.part.checked[split].count < count:
            tally = Tally(count)
            tally.note(header, count)
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

        def attempt_all(group: list[tuple[int, Picture]]) -> list[_Result | Refused]:
            return [attempt(place, picture) for place, picture in group]

        numbered = enumerate(pictures.start_at(first), start=first)
        waiting: deque[Iterator[list[_Result | Refused]]] = deque()
        with ThreadPoolExecutor() as pool:
            while True:
                if chunk := list(islice(numbered, size)):
                    groups = [chunk[at : at + _GROUP] for at in range(0, len(chunk), _GROUP)]
                    waiting.append(pool.map(attempt_all, groups))
                if not waiting:
                    return
                if len(waiting) == 2 or not chunk:
                    results = []
                    for done in waiting.popleft():
                        self.bar.update(len(done))
                        results += done
                    yield results


def _header(meaning: Meaning, _: int, picture: Picture) -> Header:
    return inspect(picture.open, meaning)


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
