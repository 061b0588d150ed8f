#!/usr/bin/env bash
# datasets 5.2.0: an imagefolder whose metadata.jsonl has a column "image" (where a picture came from, say) holds no
# pictures: that column stands in the place of the decoded ones, and nothing is said.
# Guessed beforehand: refused, or the column is renamed.
# Seen: features {"image": a string}, the row {"image": "photo-7"}.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile datasets==5.2.0 pillow==12.3.0 numpy
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
import tempfile
from pathlib import Path

import datasets
from PIL import Image

datasets.disable_progress_bars()
folder = Path(tempfile.mkdtemp())
Image.new("RGB", (8, 8)).save(folder / "0.png")
(folder / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "image": "photo-7"}) + "\n")
row = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")[0]
print(row)
if row != {"image": "photo-7"}:
    sys.exit("changed: the row was the string alone")
PYTHON
