#!/usr/bin/env bash
# Pillow 12.3.0: a 16-bit gray picture ("I;16", as a 16-bit PNG opens) turned with a smooth filter comes back nearly
# black: a pixel becomes a mixture of its own low and high byte. NEAREST is right, and so is the same picture as "F".
# Guessed beforehand: a filter costs some levels at the edges, or is refused for a mode that it cannot do.
# Seen, a flat picture of 40,000 (bytes 64 and 156) turned by 10 degrees, values of its middle: NEAREST 40000 alone,
# BILINEAR and BICUBIC 64 to 155; as "F" 40000. `resize` with the same filters is right.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile pillow==12.3.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from PIL import Image

flat = Image.fromarray(np.full((32, 32), 40_000, np.uint16))


def middle(picture, name):
    return np.asarray(picture.rotate(10, resample=Image.Resampling[name]))[10:22, 10:22]


print("mode", flat.mode)
for name in ("NEAREST", "BILINEAR", "BICUBIC"):
    turned = middle(flat, name)
    print(name, turned.min(), "to", turned.max())
    if bool(turned.max() > 255) != (name == "NEAREST"):
        sys.exit("changed: it was 40000 for NEAREST, at most 255 for the others")
as_float = middle(flat.convert("F"), "BILINEAR")
print("F, BILINEAR", as_float.min(), "to", as_float.max())
if not np.allclose(as_float, 40_000):
    sys.exit("changed: as F it was right")
PYTHON
