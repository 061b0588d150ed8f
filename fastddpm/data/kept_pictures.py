"""Pictures that a run keeps in mind, in RUN/pictures.safetensors: by content, and which part each is in.

    hashes, labels, parts    rows: the store's images in its order, then those that are gone from it
    train, held_out          rows, by their place in a part
    copies, names            further copies of rows; names of all
    facts (metadata)         where the pictures lie, fingerprints, classes

A picture is known again by its pixels as they are stored, wherever it lies and whatever it is called
(`data.changed_pictures`). So nothing that a run has trained on becomes held out, whatever is added, removed or renamed.
"""

import json
import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fastddpm.config import DataConfig, RunConfig, load_run, newest_manifest
from fastddpm.data.changed_pictures import HELD_OUT, TRAIN, carried_over, labels_of
from fastddpm.data.groups import NONE
from fastddpm.data.ingest import ImageSet, ingest
from fastddpm.data.sources import place_of
from fastddpm.data.splits import Splits, Subset, draw_splits
from fastddpm.data.store import NAMES
from fastddpm.files import written

FILE = "pictures.safetensors"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class KeptPictures:
    """Pictures of a run, and the part of each."""

    facts: dict[str, Any]
    """plain JSON values: source, place, store (fingerprint of the images), fingerprint (of the splits), image_shape,
    label_names, num_left_out, num_copies (trained on), num_now (rows that are in the store)"""
    hashes: np.ndarray
    """(M, 16), uint8"""
    labels: np.ndarray
    """(M,), int64; -1: none"""
    parts: np.ndarray
    """(M,), uint8: NEITHER, TRAIN or HELD_OUT"""
    copies: np.ndarray
    """(K, 3), int64, as in the store"""
    train: np.ndarray
    """(T,), int64"""
    held_out: np.ndarray
    """(H,), int64"""
    names: np.ndarray
    """(bytes,), uint8, packed: of the rows in the store, of the copies, of the other rows"""

    @classmethod
    def of(cls, splits: Splits, source: str) -> "KeptPictures":
        """Pictures of a run that begins, or of one that goes on with what it kept."""
        images, where = splits.train.source, {"source": source, "place": place_of(source)}
        if splits.kept is not None:
            return replace(splits.kept, facts={**splits.kept.facts, **where})
        parts = np.zeros(len(images.hashes), np.uint8)
        train, held_out = splits.train.indices[: len(splits.train) - splits.num_copies], splits.held_out.indices
        parts[train], parts[held_out] = TRAIN, HELD_OUT
        facts = {
            **where, "store": images.fingerprint, "fingerprint": splits.fingerprint,
            "image_shape": list(images.images.shape[1:]), "label_names": images.label_names,
            "num_left_out": splits.num_copies_left_out, "num_copies": splits.num_copies, "num_now": len(parts),
            "num_together": splits.num_together, "num_parted": splits.num_parted,
        }  # fmt: skip
        hashes, names = np.asarray(images.hashes), np.load(images.folder / NAMES)
        return cls(facts, hashes, labels_of(images), parts, images.duplicates, train, held_out, names)

    @classmethod
    def read(cls, run: Path) -> "KeptPictures | None":
        """Read those in a run's folder; None: it keeps none, as before version 0.2.

        Raises: ValueError: the file is damaged.
        """
        if not (file := run / FILE).is_file():
            return None
        try:
            with safe_open(file, framework="numpy") as found:
                facts = json.loads(found.metadata()["facts"])
                return cls(facts, **{of.name: found.get_tensor(of.name) for of in fields(cls)[1:]})
        except (SafetensorError, ValueError, KeyError) as error:
            raise ValueError(f"{file} cannot be read ({error}); restore it, or choose another run") from error

    def write(self, run: Path) -> None:
        """Put them in a run's folder."""
        arrays = {of.name: np.ascontiguousarray(getattr(self, of.name)) for of in fields(self)[1:]}
        with written(run / FILE) as temporary:
            save_file(arrays, temporary, {"facts": json.dumps(self.facts)})

    def splits(self, images: ImageSet) -> Splits:
        """The parts, of the store that the rows are of."""
        of_train = self.copies[self.copies[:, 2] == 0]
        of_train = of_train[self.parts[of_train[:, 0]] == TRAIN][: self.facts["num_copies"]]
        train, held_out = Subset.of(images, self.train, of_train), Subset.of(images, self.held_out, of_train[:0])
        return Splits(
            train, held_out, self.facts["num_left_out"], len(of_train), self.facts["fingerprint"], self,
            *(self.facts.get(name, 0) for name in ("num_together", "num_parted")),
        )  # fmt: skip


def load_kept(
    config: DataConfig, kept: KeptPictures | None, ways: str, *, seed: int, keeps_classes: bool = False,
    show_progress: bool = True,
) -> Splits:  # fmt: skip
    """Splits of a run that goes on: the parts that it kept, wherever its pictures lie now; of a new one they are drawn.

    Args:
        ways: what to do about changed pictures, for the message.
        keeps_classes: its network knows the classes by number, and takes no others.
    Raises: ValueError: the pictures changed without `data.allow_change`; says how many, and some of their names.
    """
    if kept is not None and config.source == kept.facts["source"] and place_of(config.source) == config.source:
        config = replace(config, source=kept.facts["place"])  # not to be found from here
    images = ingest(config, show_progress=show_progress)
    if kept is None:
        return draw_splits(images, config, seed=seed, show_progress=show_progress)
    if images.fingerprint != kept.facts["store"]:
        kept, change = carried_over(kept, images, config, ways, keeps_classes)
        if show_progress:
            said = f"{change}: going on with them" if change else "the run's own pictures, named or ordered otherwise"
            _log.warning("%s: %s", config.source, said)
    elif show_progress and (place := place_of(config.source)) != kept.facts["place"]:
        _log.warning("the run's pictures lay at %s; equal ones at %s are taken", kept.facts["place"], place)
    return kept.splits(images)


def splits_of_run(run: Path) -> tuple[RunConfig, Splits]:
    """A run's settings and pictures as it was trained, looked up where they lie.

    Raises: ValueError: they are gone, or others than it was trained on.
    """
    config, kept = load_run(run), KeptPictures.read(run)
    data, again = replace(config.data, allow_change=False), f"fastddpm train --config {run}/config.yaml --out {run}"
    if kept is not None:
        place, source = kept.facts["place"], config.data.source
        if Path(place).is_absolute() and not Path(place).exists() and place_of(source) == source:
            raise ValueError(
                f"the pictures of {run} lay at {place}, and are not there; put them back, say where they are now "
                f"({again} --data.source PLACE), or name others, such as detect's --normal IMAGES"
            )
        data = replace(data, source=place if Path(place).exists() else source)
    ways = f"put them back, or let the run go on with them: {again} --data.allow_change true"
    splits = load_kept(data if kept else replace(data, group=NONE), kept, ways, seed=config.seed)
    manifest = newest_manifest(run)
    if kept is None and manifest is not None and manifest["data"] != splits.fingerprint:
        raise ValueError(
            f"{data.source} holds {len(splits.train)} images to train on and {len(splits.held_out)} held out, and they "
            f"are not those of {run}, which kept no list of them (before version 0.2); put them back, or name others"
        )
    return config, splits
