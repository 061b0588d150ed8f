"""A contact sheet: sources beside what was made of them, and what was dropped."""

from pathlib import Path

import numpy as np

from fastddpm import report
from fastddpm.verbs.augment.augmentations import Augmentations
from fastddpm.verbs.augment.filters import COPY, LABEL_LOST, Filtered

MAX_ROWS, MAX_COLUMNS, MAX_DROPPED = 20, 10, 40
SIDE = 56
"""pixels of an image, about"""
FRAMES = {LABEL_LOST: (220, 40, 40), COPY: (240, 150, 20)}
_MEANINGS = {
    LABEL_LOST: "red frame: dropped, its label is lost",
    COPY: "orange: dropped, a near-copy (below, each beside what it is near to)",
}
_TITLES = {
    "variations": "a source, then its variations",
    "cutmix": "image, partner, the paste, the blend; beside them the share of each label",
    "samples": "samples of a class",
}


class Sheet:
    """Takes images as they are looked at, and keeps the few that it shows: those of some sources (of samples: of some
    classes; of blends: some of them) spread evenly over the labels."""

    def __init__(self, series: Augmentations):
        self._series = series
        labels = series.data.labels[series.plan.sources]
        groups = {"variations": series.plan.sources, "samples": labels, "cutmix": np.arange(len(series.plan))}
        self._group_of = groups[series.request.mode]
        by_label = np.lexsort((self._group_of, labels))
        different = self._group_of[by_label][np.sort(np.unique(self._group_of[by_label], return_index=True)[1])]
        chosen = different[np.linspace(0, len(different) - 1, min(MAX_ROWS, len(different))).round().astype(int)]
        self._rows: dict[int, list[tuple[int, np.ndarray]]] = {int(group): [] for group in chosen}
        self._dropped: dict[str, list[np.ndarray]] = {reason: [] for reason in FRAMES}

    def add(self, place: int, image: np.ndarray, seen: Filtered) -> None:
        """Take an image, (C, H, W), uint8, and what was seen of it."""
        shown = framed(image, seen.reason)
        row = self._rows.get(int(self._group_of[place]))
        if row is not None and len(row) < MAX_COLUMNS:
            row.append((place, shown))
        if seen.reason is not None and len(self._dropped[seen.reason]) < MAX_DROPPED:
            originals = [] if seen.original is None else [framed(seen.original, None)]
            self._dropped[seen.reason] += [shown, *originals]

    def save(self, path: Path) -> None:
        """Draw what was kept of them."""
        rows = [self._row(found) for found in self._rows.values() if found]
        title = _TITLES[self._series.request.mode]
        columns = max((len(images) for _, images in rows), default=MAX_COLUMNS)
        columns += columns % 2  # a copy and its original stay together
        for reason, found in self._dropped.items():
            for first in range(0, len(found), columns):
                rows.append((reason.replace("_", " "), np.stack(found[first : first + columns])))
        meanings = [_MEANINGS[reason] for reason, found in self._dropped.items() if found]
        title += f"\n{'; '.join(meanings)}" if meanings else ""
        scale = max(1, round(SIDE / self._series.image_shape[2]))
        report.save_labelled_rows(rows, path, scale=scale, title=title, width=1000)

    def _row(self, found: list[tuple[int, np.ndarray]]) -> tuple[str, np.ndarray]:
        place, names = found[0][0], self._series.data.label_names
        given = [framed(image, None) for image in self._series.given(place)]
        shares = self._series.soft_label(place)
        name = "\n".join(
            (names[label] if names[label] == str(label) else f"{label} {names[label][:9]}")
            + (f" {share:.0%}" if len(shares) > 1 else "")
            for label, share in shares.items()
        )
        starts = self._series.plan.starts
        if starts is not None:
            seen = sorted({int(starts[other]) for other, _ in found})
            name += f"\nt = {seen[0]}" + (f" to {seen[-1]}" if len(seen) > 1 else "")
        return name, np.stack([*given, *(image for _, image in found)])


def framed(image: np.ndarray, reason: str | None) -> np.ndarray:
    """An image, (C, H, W) uint8, in colour, (3, H, W), with a frame that says why it is dropped."""
    colour = np.broadcast_to(image, (3, *image.shape[1:])).copy()
    if reason is not None:
        wide = max(1, image.shape[2] // 28)
        inside = np.zeros(image.shape[1:], dtype=bool)
        inside[wide:-wide, wide:-wide] = True
        colour[:, ~inside] = np.array(FRAMES[reason], dtype=np.uint8)[:, None]
    return colour
