#!/usr/bin/env bash
# datasets 5.2.0: a metadata.csv put into an imagefolder, to add captions, say, removes what was there before: the
# labels of the class folders, and each picture that it has no line for. Nothing is said.
# Guessed beforehand: a column more, empty for pictures without a line.
# Seen: 4 pictures with labels; with a metadata.csv of 3 lines 3 rows of image and note, no label.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile datasets==5.2.0 pillow==12.3.0 numpy
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import sys
import tempfile
from pathlib import Path

import datasets
from PIL import Image

datasets.disable_progress_bars()
folder = Path(tempfile.mkdtemp())
for name in ("cat/1", "cat/2", "dog/3", "dog/4"):
    (folder / name).parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(folder / f"{name}.png")


def facts():
    found = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
    return found.num_rows, found.column_names


before = facts()
(folder / "metadata.csv").write_text("file_name,note\ncat/1.png,a\ncat/2.png,b\ndog/3.png,c\n")
after = facts()
print("before", before, "after", after)
if before != (4, ["image", "label"]) or after != (3, ["image", "note"]):
    sys.exit("changed: it was 4 rows with labels, then 3 without")
PYTHON
