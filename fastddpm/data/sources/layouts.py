"""Meaning of the folders that pictures lie in.

    cat/1.png dog/2.png                                           classes
    train/cat/1.png test/dog/2.png, or cat/train/1.png            splits, under any usual name, and classes
    train/good/0.png test/crack/0.png ground_truth/crack/0_mask.png    MVTec AD; BTech's train/ok test/ko
    normal/0.png abnormal/0.png mask/0.png                        normal ones, kinds of defects; VisA's Data/Images
    images/1.png masks/1.png, or 1.png 1_mask.png                 pictures and their masks

A mask is no picture, wherever it lies. What can be read in two ways is refused, unless `data.layout` says which.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from PIL import Image

from fastddpm.data.sources.base import WHOLE, Contents, Picture, indexed, printable
from fastddpm.data.sources.masks import PathParts, find_masks, is_normal, split_of
from fastddpm.process import counted, some

SPLIT_NAMES = ("train", "valid", "val", "validation", "test")
"""names that a split keeps; others become train, valid or test"""
_Folders = Sequence[tuple[str, ...]]
_log = logging.getLogger(__name__)


class _Place(NamedTuple):
    """Split, and name of the class or kind, of a picture; empty: of none."""

    split: str
    kind: str


def arranged(paths: Sequence[str], open_at: Callable[[int], Image.Image], layout: str | None = None) -> Contents:
    """Splits, classes and masks of files by their folders; one folder around everything counts for nothing.

    Args:
        paths: relative, with slashes.
        open_at: opens the picture of the path at an index.
        layout: `data.layout`.
    Raises: ValueError: two readings are possible; says which.
    """
    files = PathParts.all(paths)
    of_mask = find_masks(files, by_folder=layout != "classes")
    pictures = [index for index in range(len(paths)) if index not in of_mask]
    with_mask = {files[picture].folders for whose in of_mask.values() for picture in whose}
    path_of = {files[index].folders: paths[index] for index in reversed(pictures)}
    folders = sorted(path_of)
    name, found = _read(path_of, [folder in with_mask for folder in folders], layout)
    place_in = dict(zip(folders, found, strict=True))
    places = [place_in[files[index].folders] for index in pictures]
    kinds = sorted({place.kind for place in found})
    number_of = {kind: number for number, kind in enumerate(kinds)} if "" not in kinds and len(kinds) > 1 else {}
    if "" in kinds and len(kinds) > 2:
        file = paths[pictures[next(at for at, place in enumerate(places) if not place.kind)]]
        _log.warning("no labels: the folders %s would be classes, but %s lies outside of them", some(kinds[1:]), file)
    masks_of, of_split = defaultdict(list), defaultdict(list)
    for mask, whose in of_mask.items():
        masks_of[whose[0] if len(whose) == 1 else None].append(Picture(printable(paths[mask]), partial(open_at, mask)))
    for at, place in enumerate(places):
        of_split[place.split].append(at)

    def picture_at(chosen: Sequence[int], at: int) -> Picture:
        index, label = pictures[chosen[at]], number_of.get(places[chosen[at]].kind)
        return Picture(printable(paths[index]), partial(open_at, index), label, masks=tuple(masks_of.get(index, ())))

    trained = {place.kind for place in found if place.split == "train"}
    has_defects = bool(trained) and all(map(is_normal, trained)) and len(kinds) > 1
    return Contents(
        {split: indexed(partial(picture_at, of_split[split]), len(of_split[split])) for split in sorted(of_split)},
        tuple(map(printable, kinds)) if number_of else None,
        layout=_said(name, Counter(places), len(of_mask), len(masks_of.get(None, ())), has_defects=has_defects),
        has_defects=has_defects,
    )


def _read(
    path_of: Mapping[tuple[str, ...], str], with_mask: Sequence[bool], layout: str | None
) -> tuple[str, list[_Place]]:
    """Name of the layout, and the place of each folder.

    Args:
        path_of: the first picture of each folder.
    Raises: ValueError: two readings are possible.
    """
    folders = sorted(path_of)
    inner = _inside(folders)
    tops = {_top(folder) for folder in inner}
    if layout == "flat":
        return "", [_Place(WHOLE, "") for _ in inner]
    if layout == "defects" or (layout is None and _are_defects(inner, with_mask)):
        return _normal_and_others(folders, inner)
    named = {top for top in tops if split_of(top)}
    has_train = "train" in map(split_of, tops)
    if layout == "splits" or (layout is None and has_train and tops == named):
        return _in_splits(inner)
    if layout is None and (len(named) > 1 or (has_train and "" in tops)):
        outside = printable(path_of[folders[0]])  # the shortest
        others = ", ".join(sorted(printable(top) or outside for top in tops - named)[:5])
        raise ValueError(
            f"the folders {' and '.join(sorted(map(printable, named))[:5])} read as splits or as classes, and "
            f"{f'lie beside {others}' if others else 'none of them is to train on'}: --data.layout splits, classes or "
            "flat says which; or give the folder to train on alone"
        )
    if layout is None and len(tops) > 1 and "" not in tops:
        if all(len(folder) == 2 and split_of(folder[1]) for folder in inner) and _are_sets(inner, with_mask):
            return "splits", [_Place(_kept_name(folder[1], set()), folder[0]) for folder in inner]
        if _are_sets(inner, with_mask):
            some = ", ".join(sorted(map(printable, tops))[:20])
            raise ValueError(
                f"each of {len(tops)} folders ({some}) is a set of its own, with train, test or normal below it, or a "
                "class: give one of them as the source, or --data.layout classes"
            )
    return "classes", [_Place(WHOLE, _top(folder)) for folder in inner]


def _top(folder: Sequence[str]) -> str:
    return folder[0] if folder else ""


def _inside(folders: _Folders) -> _Folders:
    """A zip, or what comes out of it, often holds one folder that holds everything: it is no class."""
    while len(tops := {_top(folder) for folder in folders}) == 1 and split_of(top := tops.pop()) != "train" and top:
        folders = [folder[1:] for folder in folders]
    return folders


def _are_sets(inner: _Folders, with_mask: Sequence[bool]) -> bool:
    """Below each first-level folder there are splits, or normal ones and defects."""
    groups = defaultdict(list)
    for folder, has_mask in zip(inner, with_mask, strict=True):
        groups[folder[0]].append((folder[1:], has_mask))
    for group in groups.values():
        below, marked = zip(*group, strict=True)
        splits = {split_of(_top(folder)) for folder in below}
        if not ("train" in splits and None not in splits) and not _are_defects(_inside(below), marked):
            return False
    return True


def _are_defects(inner: _Folders, with_mask: Sequence[bool]) -> bool:
    """Some lie in a folder of normal ones, and have no masks; all other folders have some."""
    marked: Counter[str] = Counter()
    for folder, has_mask in zip(inner, with_mask, strict=True):
        marked[_top(folder)] += has_mask
    return any(map(is_normal, marked)) and all(bool(count) != is_normal(top) for top, count in marked.items())


def _normal_and_others(folders: _Folders, inner: _Folders) -> tuple[str, list[_Place]]:
    is_train = [is_normal(_top(folder)) and not _top(folder).lower().endswith("test") for folder in inner]
    if not any(is_train):
        raise ValueError("data.layout defects wants a folder good, ok or normal to train on, and there is none")
    is_visa = {"data", "images"} <= set(map(str.lower, folders[0]))
    places = [_Place("train" if of else "test", _top(f) or "others") for f, of in zip(inner, is_train, strict=True)]
    return "VisA" if is_visa else "normal and abnormal", places


def _in_splits(inner: _Folders) -> tuple[str, list[_Place]]:
    tops = {_top(folder) for folder in inner}
    trains = sorted(printable(top) for top in tops if split_of(top) == "train")
    if len(trains) > 1:
        raise ValueError(
            f"{' and '.join(trains)} both read as the split to train on: leave one of them there, or take them as "
            "classes: --data.layout classes"
        )
    below = [_top(rest) for rest in _inside([folder[1:] for folder in inner])]
    places = [_Place(_kept_name(_top(folder), tops), kind) for folder, kind in zip(inner, below, strict=True)]
    normal = next(filter(is_normal, sorted(set(below))), None)
    if normal and {place.kind for place in places if place.split == "train"} == {""}:  # all normal, in no folder
        places = [_Place(split, kind or normal) for split, kind in places]
    return "splits", places


def _kept_name(top: str, tops: set[str]) -> str:
    """A split's name: as it is where it is a usual one, or another folder means the same split."""
    of = split_of(top)
    if of is None or top in SPLIT_NAMES or sum(split_of(other) == of for other in tops) > 1:
        return printable(top) or WHOLE
    return of


def _said(name: str, counts: Mapping[_Place, int], num_masks: int, num_alone: int, *, has_defects: bool) -> str | None:
    """Line about what was understood."""
    splits: Counter[str] = Counter()
    for place, count in counts.items():
        splits[place.split] += count
    kinds, parts = {place.kind for place in counts}, []
    if has_defects:
        normal = "/".join(sorted(printable(place.kind) for place in counts if place.split == "train"))
        defects = counted(sum(not is_normal(kind) for kind in kinds), "kind") + " of defects"
        masks, title = " and their masks" if num_masks else "", "MVTec" if name == "splits" else name
        parts = [f"{title} layout: {splits['train']:,} {normal} to train on; {defects}{masks} left for detect"]
    else:
        parts += ["splits: " + ", ".join(f"{of} {splits[of]:,}" for of in sorted(splits))] * (name == "splits")
        parts += [counted(len(kinds), "class folder")] * (len(kinds) > 1 and "" not in kinds)
        has_normal = name == "classes" and parts and any(map(is_normal, kinds))
        parts += ["to train on normal ones alone: --data.layout defects"] * bool(has_normal)
        parts += [f"{counted(num_masks, 'mask')} left out"] * bool(num_masks)
    parts += [f"{counted(num_alone, 'mask')} of no picture, or of several"] * bool(num_alone)
    return "; ".join(parts) or None
