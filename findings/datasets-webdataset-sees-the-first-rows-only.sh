#!/usr/bin/env bash
# datasets 5.2.0: `load_dataset("webdataset")` takes the columns from the first samples of a tar. A shard whose pictures
# are PNG first and JPEG later has rows of None for the later ones, one whose labels begin later has no labels; names
# with a dot in them ("scan.1.png", "scan.2.png") are one row, cut at the first dot.
# Guessed beforehand: a column for each field of the shard; each picture a row.
# Seen: 20 rows, 10 of them without a picture; no "cls" column; 10 pictures in 1 row.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile datasets==5.2.0 pillow==12.3.0 numpy
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import io
import sys
import tarfile
import tempfile
from pathlib import Path

import datasets
from PIL import Image

datasets.disable_progress_bars()


def picture(kind):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    return file.getvalue()


def rows(members):
    shard = Path(tempfile.mkdtemp(), "0.tar")
    with tarfile.open(shard, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return datasets.load_dataset("webdataset", data_files=str(shard), split="train")


png, jpeg = picture("PNG"), picture("JPEG")
mixed = rows([(f"{i}.png", png) if i < 20 else (f"{i}.jpg", jpeg) for i in range(10, 30)])
empty = sum(row["png"] is None for row in mixed)
late = rows(sum(([(f"{i}.png", png)] + [(f"{i}.cls", b"1")] * (i >= 20) for i in range(10, 30)), []))
dots = rows([(f"scan.{i}.png", png) for i in range(10)])
print(f"mixed: {mixed.num_rows} rows, {empty} empty; late labels: {late.column_names}; dots: {dots.num_rows} row")
if (mixed.num_rows, empty, "cls" in late.column_names, dots.num_rows) != (20, 10, False, 1):
    sys.exit("changed: it was 20 rows with 10 empty ones, no labels, 1 row")
PYTHON
