"""Read a source once: look at every header, decide on channels and size, decode, store; or map what is stored."""

import hashlib
import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from fastddpm.config import DataConfig
from fastddpm.data import cache, decode
from fastddpm.data.decode import BadImage, Header
from fastddpm.data.sources import Pictures, Source, find_source

VERSION = 1
"""of the store; goes up when the same source would be stored otherwise"""

_CHUNK = 1024  # pictures in flight: bounds the memory of decoded images that wait for their turn
_NUM_NAMED = 20
_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """All usable images of a source."""

    images: np.ndarray
    """(N, C, H, W), uint8, a read-only map of the store"""
    labels: np.ndarray | None
    """(N,), int64"""
    label_names: tuple[str, ...] | None
    """the name of each label; there are names exactly if there are labels"""
    fingerprint: str
    """SHA-256, hexadecimal, of images, labels and their names"""


def ingest(config: DataConfig, *, show_progress: bool = True) -> ImageSet:
    """Map the images of `config.source`, after reading and storing them if that was not done before.

    Args:
        config: `num_images` and `num_held_out` play no part here.
        show_progress: False: no progress bar and no lines about files left out, as on all processes but one.
    Raises: ValueError: no such source, no usable image, images of several sizes without `image_size`, or bad files
        that `on_bad_file` and `max_bad_files` do not allow; each of those is named with its reason.
    """
    source = find_source(config.source)
    settings = {"version": VERSION, "image_size": config.image_size, "channels": config.channels}
    key = cache.key_of({"source": source.identity, "stamps": source.stamps, "others": source.other_files} | settings)
    entry = _open_or_make(cache.root(config.cache_dir) / key, source, config, show_progress)
    _judge_bad_files(entry.manifest["bad_files"], len(entry.images), config, show_progress)
    names = entry.manifest["label_names"]
    return ImageSet(entry.images, entry.labels, None if names is None else tuple(names), _fingerprint(entry.manifest))


def _open_or_make(folder: Path, source: Source, config: DataConfig, show_progress: bool) -> cache.Entry:
    with suppress(cache.MissingEntry):  # damaged or not there: another process may be making it
        return cache.read_entry(folder)
    with cache.locked(folder):
        try:
            return cache.read_entry(folder)
        except cache.DamagedEntry as damage:
            _log.warning("the stored images in %s are damaged (%s): reading them in again", folder, damage)
        except cache.MissingEntry:
            pass
        _make(folder, source, config, show_progress)
        return cache.read_entry(folder)


def _fingerprint(manifest: Mapping[str, Any]) -> str:
    hashes = {name: facts["sha256"] for name, facts in manifest["files"].items()}
    content = {"files": hashes, "label_names": manifest["label_names"]}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _judge_bad_files(bad: Mapping[str, str], num_left: int, config: DataConfig, show_progress: bool) -> None:
    """Apply the policy; the store keeps the reasons, so that a second run says the same without decoding again."""
    if bad and config.on_bad_file == "fail":
        raise ValueError(
            f"{_listed(config.source, bad)}\n"
            f"mend or remove them, or use --data.on_bad_file skip to go on with the other {num_left}"
        )
    if len(bad) > config.max_bad_files:
        raise ValueError(
            f"{_listed(config.source, bad)}\n"
            f"more than data.max_bad_files ({config.max_bad_files}): mend or remove them, or raise that limit"
        )
    if bad and show_progress:
        _log.warning("skipped %d of %d files: %s", len(bad), len(bad) + num_left, ", ".join(list(bad)[:_NUM_NAMED]))


def _listed(source: str, bad: Mapping[str, str]) -> str:
    lines = [f"  {name} {reason}" for name, reason in list(bad.items())[:_NUM_NAMED]]
    more = [f"  ... and {len(bad) - _NUM_NAMED} more"] if len(bad) > _NUM_NAMED else []
    return "\n".join([f"{len(bad)} bad files in {source}:", *lines, *more])


# ------------------------------------------------------------------------------------------ reading in


@dataclass
class _Reading:
    """Pictures on their way into the store."""

    pictures: Pictures
    bar: tqdm
    headers: dict[int, Header] = field(default_factory=dict)
    """of each picture that has a good one, by its index"""
    bad: dict[int, str] = field(default_factory=dict)
    """the reason against each other picture"""

    def good(self) -> list[int]:
        return [index for index in self.headers if index not in self.bad]

    def named_bad(self) -> dict[str, str]:
        return {self.pictures.names[index]: self.bad[index] for index in sorted(self.bad)}


def _make(folder: Path, source: Source, config: DataConfig, show_progress: bool) -> None:
    if source.other_files and show_progress:
        some = ", ".join(source.other_files[:_NUM_NAMED])
        _log.warning("left out %d files that are no images by their name: %s", len(source.other_files), some)
    pictures = source.load()
    bar = tqdm(total=len(pictures.names), unit="image", disable=not show_progress)
    with bar, cache.new_entry(folder) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit in `decode` is lower than Pillow's
        reading = _Reading(pictures, bar)
        _inspect_all(reading)
        _check_any_left(reading, config)
        image_shape = _image_shape(list(reading.headers.values()), config)
        frames = _decode_all(reading, image_shape, config.image_size)
        cache.save_images(temporary / "images.npy", frames, image_shape)
        _check_any_left(reading, config)
        if pictures.labels is not None:
            cache.save_array(temporary / "labels.npy", pictures.labels[reading.good()])
        cache.commit(temporary, folder, _facts(source, reading, image_shape, config))


def _inspect_all(reading: _Reading) -> None:
    reading.bar.set_description("checking")
    indices = range(len(reading.pictures.names))
    for index, header in _in_order(lambda i: decode.inspect(partial(reading.pictures.open, i)), indices, reading.bar):
        if isinstance(header, BadImage):
            reading.bad[index] = str(header)
        else:
            reading.headers[index] = header


def _decode_all(reading: _Reading, image_shape: tuple[int, int, int], image_size: int | None) -> Iterator[np.ndarray]:
    """Each picture with a good header as `image_shape`, uint8, but for those that turn out bad."""

    def work(index: int) -> np.ndarray:
        frame = decode.decode(partial(reading.pictures.open, index), image_shape[0], image_size)
        if frame.shape != image_shape:
            raise BadImage(f"is {frame.shape[2]}x{frame.shape[1]}, unlike its header; set data.image_size")
        return frame

    indices = list(reading.headers)
    reading.bar.reset(total=len(indices))
    reading.bar.set_description("reading in")
    for index, frame in _in_order(work, indices, reading.bar):
        if isinstance(frame, BadImage):
            reading.bad[index] = str(frame)
        else:
            yield frame


def _in_order(
    work: Callable[[int], _Result], indices: Sequence[int], bar: tqdm
) -> Iterator[tuple[int, _Result | BadImage]]:
    """Do it for each index in threads (Pillow releases the GIL); a BadImage becomes the result."""

    def attempt(index: int) -> _Result | BadImage:
        try:
            return work(index)
        except BadImage as error:
            return error

    with ThreadPoolExecutor() as pool:
        for first in range(0, len(indices), _CHUNK):
            chunk = indices[first : first + _CHUNK]
            for index, result in zip(chunk, pool.map(attempt, chunk), strict=True):
                bar.update()
                yield index, result


def _check_any_left(reading: _Reading, config: DataConfig) -> None:
    if not reading.good():
        listed = _listed(config.source, reading.named_bad())
        raise ValueError(f"{listed}\nnone of the {len(reading.pictures.names)} files can be used")


def _image_shape(headers: Sequence[Header], config: DataConfig) -> tuple[int, int, int]:
    """(C, H, W) of every stored image."""
    channels = config.channels or (3 if any(header.is_colour for header in headers) else 1)
    if config.image_size is not None:
        return channels, config.image_size, config.image_size
    sizes = Counter(header.size for header in headers)
    if len(sizes) > 1:
        some = ", ".join(f"{width}x{height} ({count})" for (width, height), count in sizes.most_common(5))
        raise ValueError(
            f"{config.source} holds images of {len(sizes)} sizes: {some}{', ...' if len(sizes) > 5 else ''}; "
            f"fit them to one with --data.image_size, such as {min(min(pair) for pair in sizes)}"
        )
    width, height = next(iter(sizes))
    return channels, height, width


def _facts(source: Source, reading: _Reading, image_shape: tuple[int, int, int], config: DataConfig) -> dict[str, Any]:
    good = [reading.headers[index] for index in reading.good()]
    sizes = Counter(header.size for header in good)
    return {
        "version": VERSION,
        "pillow": PIL.__version__,
        "source": source.identity,
        "image_size": config.image_size,
        "channels": config.channels,
        "num_images": len(good),
        "image_shape": image_shape,
        "modes": Counter(header.mode for header in good),
        "sizes": {f"{width}x{height}": count for (width, height), count in sizes.most_common(_NUM_NAMED)},
        "num_sizes": len(sizes),
        "num_upscaled_over_2x": sum(config.image_size > 2 * min(h.size) for h in good) if config.image_size else 0,
        "label_names": reading.pictures.label_names,
        "bad_files": reading.named_bad(),
        "other_files": source.other_files,
    }
