"""Checkpoints that are whole or not there: written aside, synced, checksummed, then renamed.

    checkpoints/step-00001000/   model, ema, optimizer .safetensors; state.json; manifest.json (sizes, sha256)
    checkpoints/.step-....tmp    being written; removed at the next start
    checkpoints/latest           the name of the newest one, for people; the manifests decide

No random state and no data loader state is in them: every draw is a function of the step (see `fastddpm.draws`).
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fastddpm.config.runs import manifest_checksum
from fastddpm.files import aside, put, remove, write_json, write_text
from fastddpm.pipelines.saved_parts import check_network
from fastddpm.process import counted

FORMAT_VERSION = 1
_MANIFEST = "manifest.json"


class CorruptCheckpointError(ValueError):
    """A checkpoint whose files are not those that were written."""


def commit(root: Path, step: int, write_files: Callable[[Path], None], facts: dict[str, Any], *, keep: int) -> Path:
    """Write a checkpoint so that a crash at any moment leaves the old ones whole.

    Args:
        root: the run's `checkpoints` folder.
        step: optimizer steps done.
        write_files: writes the checkpoint's files into the folder it is given.
        facts: stand in the manifest (world size, versions, hashes).
        keep: the newest checkpoints that stay; older ones are removed after the commit, never before.
    Returns: the committed folder.
    """
    name = name_of(step)
    temporary = aside(root / name)
    remove(temporary)
    temporary.mkdir(parents=True)
    try:
        write_files(temporary)
        _write_manifest(temporary, {"format": FORMAT_VERSION, "step": step, **facts})
        put(temporary, root / name)  # a damaged one of the same step, which the run went back behind, goes
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, SafetensorError):  # what a full disk is called there
            raise ValueError(
                f"the checkpoint {root / name} could not be written ({error}); the one before it is whole: free some "
                f"space or put --out on a larger disk, and start again"
            ) from error
        raise
    write_text(root / "latest", name + "\n")
    _remove_others(root, name, keep)
    return root / name


def name_of(step: int) -> str:
    """The folder of a step's checkpoint."""
    return f"step-{step:08d}"


def check_space(root: Path, size: int, keep: int) -> None:
    """Raises: ValueError: the disk has no room for `keep` checkpoints of `size` bytes and one that is being written."""
    have = min(len(_committed(root)), keep)
    wanted = (keep + 1 - have) * size
    free = shutil.disk_usage(root.parent).free
    if free < wanted:
        raise ValueError(
            f"{root} has {free / 1e6:,.1f} MB free; {counted(keep, 'checkpoint')} of {size / 1e6:,.1f} MB and one "
            f"that is being written want {wanted / 1e6:,.1f} MB{' more' if have else ''}: free some, lower "
            f"train.keep_checkpoints, or put --out on a larger disk"
        )


def newest(root: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint and its manifest; None: the run has none at all.

    Raises: CorruptCheckpointError: there are checkpoints, and not one is whole: a run never starts from 0 in silence.
    """
    candidates = sorted(_committed(root), reverse=True)
    problems = []
    for path in candidates:
        try:
            return path, verify(path)
        except CorruptCheckpointError as error:
            problems.append(str(error))
            warnings.warn(f"{error}; going back to the checkpoint before it", stacklevel=2)
    if problems:
        raise CorruptCheckpointError(
            f"no whole checkpoint in {root}: {'; '.join(problems)}. Restore one, or choose another --out"
        )
    return None


def network_of_newest(root: Path) -> dict[str, Any] | None:
    """The network's config in the newest readable checkpoint, without checking its weights; None: there is none."""
    for path in sorted(_committed(root), reverse=True):
        try:
            return check_network(path)
        except ValueError:  # said when it is gone on with
            continue
    return None


def read_record(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Content of a JSON file of a checkpoint.

    Raises: ValueError: no such file, no JSON, or one of the names is not there.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; a run does not go on without it: restore it, or remove its folder")
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}); restore it, or remove its folder") from error
    missing = [name for name in names if not isinstance(found, dict) or name not in found]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; restore it, or remove its folder")
    return found


def verify(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files all have its sizes and checksums.

    Raises: CorruptCheckpointError: names the file that differs or is missing.
    """
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        own = manifest.pop("sha256")
        files = {name: (file["size"], file["sha256"]) for name, file in manifest["files"].items()}
        version, step = manifest.get("format"), int(manifest["step"])
    except (OSError, OverflowError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptCheckpointError(f"{path / _MANIFEST} cannot be read ({error!r})") from None
    if version != FORMAT_VERSION:
        raise CorruptCheckpointError(f"{path} has format {version}, this version reads {FORMAT_VERSION}")
    if own != manifest_checksum(manifest) or name_of(step) != path.name:
        raise CorruptCheckpointError(f"{path / _MANIFEST} is damaged: it is not what was saved")
    for name, (size, sha256) in files.items():
        file = path / name
        if file.parent != path or not file.is_file():
            raise CorruptCheckpointError(f"{file} is missing")
        if file.stat().st_size != size or _sha256(file) != sha256:
            raise CorruptCheckpointError(f"{file} is damaged: it is not what was saved")
    return manifest


def clean(root: Path) -> None:
    """Remove what a crash left half-written."""
    for path in root.glob(".*.tmp"):
        remove(path)


def _committed(root: Path) -> list[Path]:
    return [path for path in root.glob("step-*") if path.is_dir()]


def _remove_others(root: Path, name: str, keep: int) -> None:
    """Later ones were damaged: the run went back behind them. Of the others, the newest stay."""
    committed = sorted(_committed(root))
    up_to_now = [path for path in committed if path.name <= name]
    for path in [path for path in committed if path.name > name] + up_to_now[:-keep]:
        try:
            shutil.rmtree(path)
        except OSError as error:
            warnings.warn(f"the old checkpoint {path} could not be removed: {error}", stacklevel=2)
    clean(root)


def _write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    files = {p.name: {"size": p.stat().st_size, "sha256": _sha256(p)} for p in sorted(folder.iterdir())}
    manifest = {**facts, "files": files}
    write_json(folder / _MANIFEST, {**manifest, "sha256": manifest_checksum(manifest)})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
