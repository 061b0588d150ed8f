#!/usr/bin/env bash
# Pillow 12.3.0: a TIFF whose zero is white (WhiteIsZero, of scanners and X-rays) is turned to black-is-zero if it has 1
# or 8 bits, and left as a negative if it has 16 or is float32; tifffile 2026.3.3 leaves all as they are. A folder of
# both depths holds negatives of one another.
# Guessed beforehand: a reader turns all or none.
# Seen, 10 stored: 245 from 8 bits by Pillow, 10 from 16 bits and from float32, 10 by tifffile each time.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile pillow==12.3.0 tifffile==2026.3.3 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import tempfile

import numpy as np
import tifffile
from PIL import Image

found = {}
for kind in ("uint8", "uint16", "float32"):
    path = f"{tempfile.mkdtemp()}/{kind}.tif"
    tifffile.imwrite(path, np.full((8, 8), 10, kind), photometric="miniswhite")
    found[kind] = int(np.asarray(Image.open(path))[0, 0]), int(tifffile.imread(path)[0, 0])
print("by Pillow and tifffile:", found)
if found != {"uint8": (245, 10), "uint16": (10, 10), "float32": (10, 10)}:
    sys.exit("changed: Pillow turned 8 bits only, tifffile nothing")
PYTHON
