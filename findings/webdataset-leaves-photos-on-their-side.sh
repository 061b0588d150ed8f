#!/usr/bin/env bash
# webdataset 1.0.2 and datasets 5.2.0 open the same shard: a photograph with an EXIF orientation comes upright from
# `load_dataset("webdataset")` and lies on its side from `WebDataset(...).decode("pil")`. A model trained through one
# and measured through the other sees other pictures.
# Guessed beforehand: neither looks at EXIF, as `Image.open` does not.
# Seen, 40 x 20 pixels, orientation 6: (20, 40) by datasets, (40, 20) by webdataset.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile webdataset==1.0.2 datasets==5.2.0 pillow==12.3.0 numpy
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import io
import sys
import tarfile
import tempfile

import datasets
import webdataset
from PIL import Image

datasets.disable_progress_bars()
file, photo = io.BytesIO(), Image.new("RGB", (40, 20))
exif = photo.getexif()
exif[0x0112] = 6
photo.save(file, "JPEG", exif=exif)
shard = f"{tempfile.mkdtemp()}/0.tar"
with tarfile.open(shard, "w") as archive:
    member = tarfile.TarInfo("0.jpg")
    member.size = file.tell()
    file.seek(0)
    archive.addfile(member, file)
by_webdataset = next(iter(webdataset.WebDataset(shard, shardshuffle=False).decode("pil")))["jpg"].size
by_datasets = datasets.load_dataset("webdataset", data_files=shard, split="train")[0]["jpg"].size
print("datasets", by_datasets, "webdataset", by_webdataset)
if by_datasets != (20, 40) or by_webdataset != (40, 20):
    sys.exit("changed: it was (20, 40) by datasets, (40, 20) by webdataset")
PYTHON
