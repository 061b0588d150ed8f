"""Pictures that a word means: one grammar for every verb and the page.

    photo.png                        an image file
    FOLDER, FILE.zip, FILE.npz ...   any `data.source`: a folder, an archive, an array, a table, "digits", a Hub name
    SOURCE:test                      the split of a source that has several; without it `train`
    RUN:train, RUN:held_out          a run's own images, as it was trained
    WORD#5, WORD#0:5, WORD#5:        rows of any of these, counted from 0 in its own order

A picture is made to fit as the run did whose network sees it: all settings of that come from the run's config.yaml.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from fastddpm import draws
from fastddpm.config import DataConfig, load_run
from fastddpm.config.runs import run_folder
from fastddpm.data.decode import decode, inspect
from fastddpm.data.fit import Fit, Placement
from fastddpm.data.groups import groups_of, joined
from fastddpm.data.kept_pictures import splits_of_run
from fastddpm.data.meaning import Meaning
from fastddpm.data.opening import BadImage, is_image, open_file
from fastddpm.data.pixels import center_crop
from fastddpm.data.reading import each_picture
from fastddpm.data.siblings import near_copies
from fastddpm.data.sources import KINDS, WHOLE, Contents, Picture, find_source, with_pages
from fastddpm.data.sources.base import indexed, printable, sources_in
from fastddpm.data.sources.masks import is_normal
from fastddpm.data.splits import PARTED
from fastddpm.draws import Stream
from fastddpm.process import say

RUN_SPLITS = ("train", "held_out")
FORMS = f"an image file, {KINDS}, or RUN:train or RUN:held_out of a run; each also with rows, such as #5, #0:5 or #5:"
_WORD = re.compile(r"(?P<source>.+?)(:(?P<split>\w+))?(#(?P<first>\d+)(?P<range>:(?P<end>\d*))?)?")


@dataclass(frozen=True, eq=False)
class NamedImages:
    """Pictures that a word means, and what is to be said of them."""

    images: np.ndarray
    """(N, C, H, W), uint8"""
    labels: np.ndarray | None
    """(N,), int64, below the number of `label_names`"""
    label_names: tuple[str, ...] | None
    names: Sequence[str]
    """N: the name of a file, a split and a row, or of a run's image the word that means it alone"""
    facts: Mapping[str, Any]
    """plain JSON values: source, split, how many of how many, seed of the choice; run, rows, fitted where there are"""
    placements: Sequence[Placement | None] = ()
    """N: place of each in its picture; None: an image of a run's store, which keeps no sizes. Empty: of no image"""
    kinds: Sequence[str | None] | None = None
    """N: the name of what is normal, or of a kind of defects, where classes are such; None: they are none"""
    masks: Sequence[tuple[Picture, ...]] | None = None
    """N: those of each, where folders hold some"""
    made_from: Sequence[str | None] = ()
    """N: as `Picture.group`. Empty: not known of any"""

    def groups(self) -> np.ndarray:
        """Number the groups of images that belong together: (N,), int64; see `data.groups`."""
        told = ((place, sources_in(group)) for place, group in enumerate(self.made_from) if group)
        return joined(near_copies(self.images), told)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def classes(self) -> Counter[str] | None:
        """Number of images of each class; None: they have no labels."""
        if self.labels is None or self.label_names is None:
            return None
        return Counter(self.label_names[label] for label in self.labels.tolist())

    @property
    def num_fitted(self) -> int:
        """Pictures that had another size, and were scaled or cut."""
        return sum(at is not None and at.size != self.image_shape[1:] for at in self.placements)


@dataclass(frozen=True, eq=False)
class LabelledImages(NamedImages):
    """The same, each with a label."""

    labels: np.ndarray
    label_names: tuple[str, ...]


@dataclass(frozen=True)
class Fitting:
    """Way of a picture to what a network sees."""

    fit: Fit
    image_shape: tuple[int, int, int]
    """(C, H, W), of the network"""

    @classmethod
    def of(cls, model: str | None, image_shape: tuple[int, int, int]) -> "Fitting":
        """Fitting of a run's own pictures; for a model that is no run folder, by the shape alone."""
        channels, height, width = image_shape
        if (run := run_folder(model)) is None:
            return cls(Fit(channels, (height, width), is_settled=True), image_shape)
        config = load_run(run)
        data, crop = config.data, config.train.random_crop
        size = data.size or (None if data.center_crop or crop else (height, width))
        fit = Fit(channels, size, data.fit, data.center_crop, data.background, crop, True, Meaning.of(data))
        return cls(fit, image_shape)

    def __call__(self, picture: Picture, *, keeps_size: bool = False) -> tuple[np.ndarray, Placement]:
        """Decode a picture; one that has the network's size and is smaller than what the run cuts out, as the images
        that the network makes may be, is taken as it is.

        Args:
            keeps_size: take every picture that has the network's size as it is.
        Returns: (C, H, W), uint8, and its place in the picture.
        Raises: BadImage: it cannot be used.
        """
        _, height, width = self.image_shape
        size, fit = inspect(picture.open, self.fit.meaning).size, self.fit
        if size == (width, height) and (keeps_size or min(size) < (fit.center_crop or 0)):
            fit = replace(fit, size=None, center_crop=None, random_crop=None)
        pixels = decode(picture.open, fit)[0]
        if pixels.shape != self.image_shape:
            raise BadImage(f"is {size[0]}x{size[1]}; the model makes {width}x{height}: scale it to that first")
        return np.array(pixels), fit.place(size)  # torch takes no array that cannot be written to

    def mask(self, path: Path) -> np.ndarray:
        """Cut and scale a mask as its image: (H, W), bool, True where it is white.  Raises: ValueError: no picture."""
        shape = (1, *self.image_shape[1:])
        geometry = replace(self, fit=replace(self.fit, channels=1, background=(0, 0, 0)), image_shape=shape)
        try:
            return np.asarray(geometry(Picture(str(path), partial(open_file, path)))[0][0] >= 128)
        except BadImage as error:
            raise ValueError(f"{path} {error}") from error


def run_in(word: str | None) -> str | None:
    """The run whose images a word means; None: it means others."""
    of = None if word is None else _Word.of(word)
    return of.source if of is not None and of.is_of_run else None


def read_inputs(words: Sequence[str], fitting: Fitting, **options: Any) -> NamedImages:
    """Read the images of several words, in order, and say how many were made to fit; labels are those of a single word.

    Args:
        options: of `named_images`.
    """
    found = [named_images(word, fitting, **options) for word in words]
    count = sum(of.num_fitted for of in found)
    names = [name for of in found for name in of.names]
    if count:
        _, height, width = fitting.image_shape
        say(PartialState(), f"{count} of {len(names)} images scaled to {width}x{height}, {fitting.fit.in_words}")
    if len(found) == 1:
        return found[0]
    images, sources = np.concatenate([of.images for of in found]), [dict(of.facts) for of in found]
    kinds = [kind for of in found for kind in of.kinds or [None] * len(of.names)]
    masks = [some for of in found for some in of.masks or [()] * len(of.names)]
    return NamedImages(
        images, None, None, names, {"sources": sources}, [at for of in found for at in of.placements],
        kinds if any(kinds) else None, masks if any(masks) else None,
    )  # fmt: skip


def named_images(
    word: str,
    fitting: Fitting | None = None,
    *,
    most: int | None = None,
    seed: int = 0,
    split: str | None = None,
    columns: Mapping[str, Any] | None = None,
    keeps_size: bool = False,
    prefers: str = "train",
) -> NamedImages:
    """Read the pictures that a word means, in the order of their source.

    Args:
        word: see above.
        fitting: into what a source's pictures are made; None: they are left in their size, which is one for all.
        most: of more than these, as many are drawn at random by the seed, the same each time; copies count.
        split: of a source with several, as `SOURCE:split`.
        columns: subset, image_column and label_column of a table, as in `DataConfig`.
        keeps_size: as of `Fitting`.
        prefers: the split of a source with several, if it is there and none is named; else train.
    Raises: ValueError: nothing there, no such split or rows, pictures that cannot be used (all are named), or images of
        a run in another shape.
    """
    of, given = _Word.of(word), {name: value for name, value in (columns or {}).items() if value is not None}
    if of.is_of_run:
        if given or split:
            raise ValueError(
                f"got {next(iter(given), 'split')} with {word}, whose images are read as {of.source} read them; "
                "leave it out"
            )
        found = _of_run(of, most, seed)
        if fitting is not None and found.image_shape != fitting.image_shape:
            raise ValueError(
                f"{word} has images of {found.image_shape} (channels, height, width), the others are "
                f"{fitting.image_shape}; give images of one shape"
            )
        return found
    contents = _contents(of.source, given)
    preferred = prefers if len(contents.splits) > 1 and prefers in contents.splits else None
    chosen, label_names, facts = _chosen(of, contents, of.split or split or preferred, most, seed)
    images, placements = _read(word, chosen, fitting, keeps_size)
    labels = [picture.label for picture in chosen]
    num_fitted = sum(at.size != images.shape[2:] for at in placements)
    facts |= {"fitted": num_fitted} if num_fitted else {}
    facts |= {"layout": contents.layout} if contents.layout else {}
    names, masks = [picture.name for picture in chosen], [picture.masks for picture in chosen]
    is_labelled, are_kinds = None not in labels, contents.has_defects or any(map(is_normal, label_names))
    kinds = [label_names[label or 0] for label in labels] if is_labelled and are_kinds else None
    return NamedImages(
        images, np.array(labels, dtype=np.int64) if is_labelled else None, label_names if is_labelled else None, names,
        facts, placements, kinds, masks if any(masks) else None, [picture.group for picture in chosen],
    )  # fmt: skip


def classes_in(word: str, *, most: int | None = None, seed: int = 0) -> Counter[str] | None:
    """Count the pictures of each class that `named_images` would read, without reading them; None: they have no
    labels."""
    of = _Word.of(word)
    if of.is_of_run:
        return _of_run(of, most, seed).classes
    chosen, names, _ = _chosen(of, _contents(of.source, {}), of.split, most, seed)
    labels = [picture.label for picture in chosen]
    return None if None in labels else Counter(names[label] for label in labels if label is not None)


@dataclass(frozen=True)
class _Word:
    """A word, taken apart."""

    text: str
    source: str
    split: str | None
    first: int
    end: int | None
    """the row after the last; None: all that follow"""

    @classmethod
    def of(cls, text: str) -> "_Word":
        found = None if Path(text).expanduser().exists() else _WORD.fullmatch(text)
        if found is None:
            return cls(text, text, None, 0, None)
        source, split, first = found["source"], found["split"], int(found["first"] or 0)
        if split is not None and Path(f"{source}:{split}").expanduser().exists():
            source, split = f"{source}:{split}", None
        is_one = found["first"] is not None and found["range"] is None
        return cls(text, source, split, first, first + 1 if is_one else int(found["end"]) if found["end"] else None)

    @property
    def is_of_run(self) -> bool:
        return self.split in RUN_SPLITS and run_folder(self.source) is not None

    def places(self, count: int, most: int | None, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Images that are chosen of so many, (N,), and facts."""
        rows = range(count)[self.first : self.end]
        if not rows:
            raise ValueError(
                f"{self.text} names no image: {self.source} has none at {self.first}, or the rows end before they begin"
            )
        places = np.array(rows)
        if is_part := most is not None and most < len(rows):
            chosen = draws.shuffled(torch.arange(most), len(rows), seed=seed, epoch=0, stream=Stream.EVALUATION)
            places = places[chosen.numpy()]
        asked = {} if len(rows) == count else {"rows": self.text.rpartition("#")[2]}
        return places, {**asked, "num_images": len(places), "of": len(rows), "seed": seed if is_part else None}


def _of_run(word: _Word, most: int | None, seed: int) -> NamedImages:
    run, split = Path(word.source), str(word.split)
    config, splits = splits_of_run(run)
    subset = getattr(splits, split)
    if not len(subset):
        raise ValueError(f"{run} has no {split} images; it was trained with data.num_held_out 0")
    places, facts = word.places(len(subset), most, seed)
    indices, labels = subset.indices[places], None if subset.labels is None else subset.labels[places]
    stored = subset.source.images[indices]
    images = np.ascontiguousarray(center_crop(torch.from_numpy(stored), config.train.random_crop).numpy())
    facts = {"source": config.data.source, "run": run.name, "split": split, **facts}
    if split == "held_out" and splits.num_parted:
        facts["num_near_trained"] = splits.num_parted
        say(PartialState(), PARTED.format(splits.num_parted, len(subset)))
    groups = list(map(str, groups_of(subset.source, config.data.group)[indices]))
    names = [f"{run}:{split}#{place}" for place in places.tolist()]
    return NamedImages(images, labels, subset.source.label_names, names, facts, [None] * len(images), made_from=groups)


def _contents(source: str, columns: Mapping[str, Any]) -> Contents:
    path = Path(source).expanduser()
    if path.is_file() and is_image(path.name):
        return with_pages(Contents({WHOLE: indexed(lambda _: Picture(printable(source), partial(open_file, path)), 1)}))
    if run_folder(source) is not None and (path / "checkpoints").is_dir():
        raise ValueError(f"{source} is a run; say {source}:train or {source}:held_out for its images")
    try:
        return find_source(DataConfig(source=source, **columns)).load()
    except ValueError as error:
        raise ValueError(str(error).replace("data.source ", "", 1).replace(KINDS, FORMS)) from error


def _chosen(
    word: _Word, contents: Contents, split: str | None, most: int | None, seed: int
) -> tuple[list[Picture], tuple[str, ...], dict[str, Any]]:
    """The pictures that are meant, the names of all labels, and facts."""
    found = list(contents.splits)
    wanted = split or (found[0] if len(found) == 1 else "train")
    if wanted not in found:
        raise ValueError(f"{word.source} has the splits {', '.join(found)}, wanted {wanted!r}; say {word.source}:SPLIT")
    everything = contents.splits[wanted]
    places, facts = word.places(everything.count or sum(1 for _ in everything.start_at(0)), most, seed)
    by_place, highest = dict.fromkeys(places.tolist()), 0
    for place, picture in enumerate(everything.start_at(0)):
        highest = max(highest, picture.label or 0)
        if place in by_place:
            by_place[place] = picture
    label_names = contents.label_names or tuple(map(str, range(highest + 1)))
    facts = {"source": word.source, "split": wanted, **facts}
    return [picture for picture in by_place.values() if picture is not None], label_names, facts


def _read(
    word: str, chosen: Sequence[Picture], fitting: Fitting | None, keeps_size: bool
) -> tuple[np.ndarray, list[Placement]]:
    """(N, C, H, W), uint8, and the place of each."""
    if fitting is None:
        headers = each_picture(word, chosen, lambda picture: inspect(picture.open, Meaning()))
        sizes = Counter(f"{header.size[0]}x{header.size[1]}" for header in headers)
        if len(sizes) > 1:
            some = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(5))
            raise ValueError(f"{word} has images of {len(sizes)} sizes: {some}; scale them to one first")
        channels, (width, height) = 3 if any(header.is_colour for header in headers) else 1, headers[0].size
        fitting = Fitting(Fit(channels, is_settled=True), (channels, height, width))
    found = each_picture(word, chosen, partial(fitting, keeps_size=keeps_size))
    return np.stack([pixels for pixels, _ in found]), [at for _, at in found]
