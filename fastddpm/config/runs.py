"""Meaning of a word that should name a model: found in its folder's text files, before anything heavy is loaded."""

import difflib
import hashlib
import json
import logging
import mimetypes
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from fastddpm.config.bounded_text import read_facts
from fastddpm.config.describe import differences
from fastddpm.config.reading import config_from_dict, load_config
from fastddpm.config.settings import RunConfig
from fastddpm.files import walk

MAX_LISTED = 10
"""runs that a refusal names"""
MAX_TIMESTEPS = 100_000
_MAX_LOOKED_AT = 1_000
"""entries of a folder"""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


_log = logging.getLogger(__name__)


def newest_manifest(run: Path) -> dict[str, Any] | None:
    """The manifest of a run's newest checkpoint that has a whole one; None: there is none."""
    for path in sorted((run / "checkpoints").glob("step-*/manifest.json"), reverse=True):
        try:
            manifest: dict[str, Any] = json.loads(path.read_text())
            if manifest.pop("sha256") == manifest_checksum(manifest):
                return manifest
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # said on going on
            continue
    return None


def manifest_checksum(manifest: dict[str, Any]) -> str:
    """SHA-256, hexadecimal, of all that a manifest says but this."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def load_run(run: Path) -> RunConfig:
    """Settings of a run: of what decides its weights, those in the newest checkpoint's manifest; config.yaml has the
    others. Where the two differ it is said, setting by setting.

    Raises: ValueError: no such file, or no settings in it.
    """
    config, kept = load_config(run / "config.yaml"), (newest_manifest(run) or {}).get("config")
    if kept is None:  # saved by an earlier version, or no checkpoint yet
        return config
    edited = [change for change in differences(config_from_dict(kept), config) if not change[-1]]
    for name, old, new, _ in edited:
        _log.warning("%s says %s %r, the run's checkpoint %r, which counts", run / "config.yaml", name, new, old)
    return load_config(run / "config.yaml", {name: json.dumps(old) for name, old, _, _ in edited})


@dataclass(frozen=True)
class FoundRun:
    """A model, and what its folder says of it."""

    word: str
    """model as the user named it"""
    kind: Literal["saved", "unfinished", "dcgan", "hub"]
    """a saved pipeline, which a finished run is too; a run with checkpoints only; a DCGAN; an id on the Hub"""
    num_timesteps: int | None = None
    """T; None: not known before it is loaded, as of an id on the Hub"""
    num_classes: int | None = None
    """without the null class; None: the model knows none"""
    knows_any_class: bool = False
    """true with a null class, which guidance needs"""
    label_names: tuple[str, ...] = ()
    """names of the classes, by number; empty: its folder does not tell"""

    def class_of(self, label: int | str) -> int:
        """The number of a class that is named by its name, or else by its number.

        Raises: ValueError: the model knows no such class, or none at all.
        """
        if self.num_classes is None:
            raise ValueError(f"class_label is {label}, but {self.word} knows no classes: leave it out")
        if label in self.label_names:
            return self.label_names.index(str(label))
        if label == "none" and self.knows_any_class:
            return self.num_classes
        number = int(label) if re.fullmatch(r"-?\d{1,9}", str(label)) else -1
        if 0 <= number < self.num_classes + self.knows_any_class:
            return number
        names = [f"{number} {name}" for number, name in enumerate(self.label_names) if name != str(number)]
        named = f" ({', '.join(names[:MAX_LISTED])}{', ...' if len(names) > MAX_LISTED else ''})" if names else ""
        any_class = f", or {self.num_classes} or 'none' for any class" if self.knows_any_class else ""
        raise ValueError(
            f"class_label is {label}; {self.word} knows 0 to {self.num_classes - 1}{named}{any_class}: use one"
        )


def find_run(word: str | os.PathLike[str], *, may_be_on_hub: bool = True) -> FoundRun:
    """Find the run that a word names: finished or not, a saved pipeline, a DCGAN, or an id on the Hub, which is not
    asked.

    Raises: ValueError: there is no model there; says what is there instead, or which runs there are.
    """
    folder, word = Path(word), str(word)
    if folder.is_dir():
        if (folder / "model_index.json").is_file():
            return _saved(word, folder)
        if (folder / "checkpoints").is_dir() or ((folder / "config.yaml").is_file() and not _runs_below(folder)):
            return _unfinished(word, folder)
        raise ValueError(_no_model(folder))
    if folder.exists() and _is_picture(folder.name):
        raise ValueError(f"{folder} is a picture, no run: did you mean the other order? The run comes first")
    if folder.exists():
        owner = next((above for above in folder.parents if is_run(above)), None)
        raise ValueError(f"{folder} is a file, no run: {f'name the folder {owner}' if owner else 'name a folder'}")
    if may_be_on_hub and _HUB_ID.fullmatch(word) and not folder.parent.is_dir():
        return FoundRun(word, "hub")
    raise ValueError(f"there is no run {word}; {_runs_here(folder)}")


def run_folder(model: str | None) -> Path | None:
    """The folder of a run; None: the model is none."""
    return Path(model) if model is not None and (Path(model) / "config.yaml").is_file() else None


def is_run(folder: Path) -> bool:
    """True for a folder that holds a run or a saved pipeline."""
    return (folder / "model_index.json").is_file() or (folder / "checkpoints").is_dir()


def _saved(word: str, folder: Path) -> FoundRun:
    index = read_facts(folder / "model_index.json")
    name = index.get("_class_name")
    if name == "DCGANPipeline":
        return FoundRun(word, "dcgan")
    parts = {part for part, made_of in index.items() if isinstance(made_of, list) and part[:1] != "_" and any(made_of)}
    if parts != {"unet", "scheduler"}:
        said = f"{word} is a {name} of {', '.join(sorted(parts)) or 'nothing'}; wanted a U-Net and a scheduler"
        raise ValueError(said.replace("\n", "\\n"))
    steps = read_facts(folder / "scheduler" / "scheduler_config.json").get("num_train_timesteps")
    names = index.get("_label_names")
    return _known(
        word, "saved", steps, read_facts(folder / "unet" / "config.json"), index.get("null_class"),
        list(names.values()) if isinstance(names, dict) else None,
    )  # fmt: skip


def _unfinished(word: str, folder: Path) -> FoundRun:
    config = read_facts(folder / "config.yaml")
    if "latent_dim" in section(config, "train"):
        raise ValueError(f"{word} is a DCGAN whose training has not ended; wait, or start fastddpm dcgan again")
    checkpoints = sorted((folder / "checkpoints").glob("step-*[0-9]"), reverse=True)
    if not checkpoints:
        raise ValueError(f"the run in {word} has no checkpoint yet; wait for its first, or start fastddpm train again")
    whole = next((path for path in checkpoints if (path / "config.json").is_file()), checkpoints[0])
    network = read_facts(whole / "config.json")
    steps, count = section(config, "scheduler").get("num_train_timesteps", 1000), network.get("num_class_embeds")
    data = folder / "data.json"
    names = read_facts(data).get("label_names") if data.is_file() else None
    return _known(word, "unfinished", steps, network, count - 1 if isinstance(count, int) else None, names)


def section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Settings of a section; empty: it is none."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _known(
    word: str, kind: Literal["saved", "unfinished"], steps: Any, network: dict[str, Any], null_class: Any, names: Any
) -> FoundRun:
    if not (type(steps) is int and 1 <= steps <= MAX_TIMESTEPS):
        raise ValueError(f"{word} says that its chain has {steps!r} timesteps; wanted 1 to {MAX_TIMESTEPS:,}")
    count = network.get("num_class_embeds")
    if not isinstance(count, int):
        return FoundRun(word, kind, steps)
    knows_any = null_class is not None or network.get("_class_name") == "PaperUNet2DModel"
    return FoundRun(word, kind, steps, count - knows_any, knows_any, tuple(map(str, names or ())))


def _no_model(folder: Path) -> str:
    below = sorted(_runs_below(folder), key=str)
    if below:
        return f"{folder} holds no model itself; runs in it: {_listed(below)}"
    owner = next((parent for parent in folder.parents if is_run(parent)), None)
    if owner is not None:
        return f"{folder} is a part of the run {owner}: name that"
    files = islice((name for _, _, names in walk(folder) for name in names), _MAX_LOOKED_AT)
    if any(_is_picture(name) for name in files):
        return f"{folder} holds images, no model: did you mean the other order? The run comes first"
    return f"{folder} holds no model; {_runs_here(folder)}"


def _is_picture(name: str) -> bool:
    return (mimetypes.guess_type(name)[0] or "").startswith("image/")


def _runs_here(wanted: Path) -> str:
    """The runs below ./runs, in this folder and beside the one that was meant; those with a like name first."""
    beside = next((folder for folder in wanted.parents if folder.is_dir()), Path())
    found = dict.fromkeys((*_runs_below(Path("runs")), *_runs_in(Path()), *_runs_in(beside)))
    if not found:
        return "none lies here: make one with fastddpm train, or name a saved pipeline, or an id on the Hub (user/name)"
    like = difflib.SequenceMatcher(b=wanted.name)

    def unlikeness(run: Path) -> tuple[float, str]:
        like.set_seq1(run.name)
        return -like.ratio(), str(run)

    return f"runs that are here: {_listed(sorted(found, key=unlikeness))}"


def _listed(runs: list[Path]) -> str:
    return ", ".join(map(str, runs[:MAX_LISTED])) + (f", ... ({len(runs)} in all)" if len(runs) > MAX_LISTED else "")


def _runs_below(folder: Path) -> list[Path]:
    """Runs in a folder, and in the folders of it that are no runs."""
    return [run for child in (folder, *_folders_in(folder)) if not is_run(child) for run in _runs_in(child)]


def _runs_in(folder: Path) -> list[Path]:
    return [child for child in _folders_in(folder) if is_run(child)]


def _folders_in(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            yield from [Path(entry.path) for entry in islice(entries, _MAX_LOOKED_AT) if entry.is_dir()]
    except OSError:
        return
