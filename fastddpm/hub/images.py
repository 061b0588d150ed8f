"""Images that the drawing verbs wrote, on their way to the Hub as a data set."""

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi

from fastddpm.config.early_checks import check_installed
from fastddpm.files import write_text
from fastddpm.hub.card import BEGIN, END
from fastddpm.hub.folder import stage
from fastddpm.hub.upload import Pushed, Target, check_can_push, explained

STALE = ["data/*.parquet", "images/*.png", "images/metadata.jsonl"]
_SOURCES = ("variation_of", "mask", "sources")
"""columns of what an image was made from"""


def holds_images(path: Path) -> bool:
    """True for a set of images as `fastddpm sample`, `vary` and `cutmix` write it, as a folder or Parquet."""
    return path.suffix.lower() == ".parquet" or (path / "metadata.jsonl").is_file()


def push_images(
    path: Path, repo_id: str, *, private: bool = False, revision: str | None = None, license: str | None = None
) -> Pushed:
    """Publish a set of images as a data set, in one commit; `load_dataset(repo_id)` and `data.source` read it.

    A card that is there already is the user's, and stays.

    Args:
        path: a .parquet file, or a folder of PNG files and metadata.jsonl.
        repo_id, private, revision, license: as of `push`.
    Raises: ValueError: no such images; and what `push` raises.
    """
    if not path.exists() or not holds_images(path):
        raise ValueError(f"{path} holds no images of fastddpm sample, vary or cutmix: wanted .parquet, or their folder")
    api = HfApi(library_name="fastddpm", token=True)
    with tempfile.TemporaryDirectory(prefix="fastddpm-push-") as name, explained(repo_id):
        staged = Path(name)
        count = _stage(path, staged)
        check_can_push(repo_id, revision)
        target = Target(api, repo_id, "dataset", revision)
        url = target.prepare(private)
        write_text(staged / "README.md", target.card() or _card(repo_id, count, license, staged))
        return target.upload(url, staged, "Upload images made with fastddpm", STALE)


def _stage(path: Path, place: Path) -> int:
    """The files as they are published; how many images they hold."""
    if path.is_file():
        check_installed(str(path), "pyarrow", "tables")
        from pyarrow import parquet

        table = place / "data" / "train-00000-of-00001.parquet"
        stage(path.parent, path.name, table)
        return int(parquet.read_metadata(table).num_rows)
    metadata = place / "images" / "metadata.jsonl"
    stage(path, metadata.name, metadata)
    rows = [_row(path, line) for line in metadata.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if Path(row["file_name"]).suffix != ".png":
            raise ValueError(f"{row['file_name']!r} is no .png, and only images that fastddpm wrote are pushed")
        stage(path, row["file_name"], place / "images" / row["file_name"])
        row |= {"model": Path(row["model"]).name} if "model" in row else {}
        row |= {name: _unplaced(row[name]) for name in _SOURCES if name in row}
    write_text(metadata, "".join(json.dumps(row) + "\n" for row in rows))
    return len(rows)


def _unplaced(name: Any) -> Any:
    """The last part of a whole path, also in a list: the rest says where people keep their files."""
    if isinstance(name, list):
        return [_unplaced(each) for each in name]
    return Path(name).name if isinstance(name, str) and Path(name).is_absolute() else name


def _row(path: Path, line: str) -> dict[str, Any]:
    """Raises: ValueError: a line of metadata.jsonl that names no file."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise ValueError(f"{path / 'metadata.jsonl'} has the row {line[:80]!r}; wanted JSON with a file_name in each")
    return row


def _card(repo_id: str, count: int, license: str | None, staged: Path) -> str:
    place = "images" if (staged / "images").is_dir() else "data"
    # said, or `load_dataset` looks for splits in the names and drops the images beside a part_test_1.png
    files = [{"split": "train", "path": f"{place}/**"}]
    front = {
        **({"license": license} if license else {}),
        "task_categories": ["unconditional-image-generation"],
        "tags": ["fastddpm", "synthetic"],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    code = f'from datasets import load_dataset\n\nimages = load_dataset("{repo_id}", split="train")'
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n# {repo_id.rpartition('/')[2]}",
        BEGIN,
        f"{count:,} images that a denoising diffusion model drew, with the package fastddpm. The columns beside each "
        "say from which seed, class, timestep and sources. They are not photographs.",
        f"```python\n{code}\n```",
        END,
    ]
    return "\n\n".join(parts) + "\n"
