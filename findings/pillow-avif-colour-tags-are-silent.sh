#!/usr/bin/env bash
# pillow 12.3.0: an AVIF whose tags (nclx, ITU-T H.273) say Display P3 or BT.2020 opens with the pixels of the same file
# tagged BT.709, and `info` holds nothing that tells them apart: colours come out wrong and no reader can know.
# Guessed beforehand: Pillow converts to sRGB, or leaves the tags in `info`, as it does a profile.
# Seen: equal pixels for primaries 1, 9 and 12; keys of `info` without any of them.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile pillow==12.3.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys

import numpy as np
from PIL import Image

pixels = np.zeros((32, 32, 3), np.uint8)
pixels[:, :16] = 200, 30, 30
pixels[:, 16:] = 30, 160, 60
file = io.BytesIO()
Image.fromarray(pixels).save(file, "AVIF", quality=100, subsampling="4:4:4")
head, mark, rest = file.getvalue().partition(b"colrnclx")
seen, keys = {}, set()
for primaries in (1, 9, 12):  # BT.709, BT.2020, Display P3
    tagged = head + mark + primaries.to_bytes(2, "big") + rest[2:]
    image = Image.open(io.BytesIO(tagged))
    seen[primaries] = np.asarray(image.convert("RGB")).tobytes()
    keys |= set(image.info)
same = len(set(seen.values())) == 1
print(f"pixels equal whatever the primaries: {same}; keys of info: {sorted(keys)}")
if not mark or not same or any("nclx" in key or "primar" in key or "icc" in key for key in keys):
    sys.exit("changed: pixels were equal, and info told nothing")
PYTHON
