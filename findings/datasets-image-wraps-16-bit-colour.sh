#!/usr/bin/env bash
# datasets 5.2.0: arrays of colour pictures with more than 8 bits, given to an `Image` column, are stored modulo 256:
# 60000 of 65535 becomes 96, 256 becomes 0, -1 becomes 255. Gray ones are kept. A warning says "Downcasting".
# Guessed beforehand: refused (as decimals are), scaled, or cut at 255.
# Seen: uint16 60000 -> 96, int32 256 -> 0, int16 -1 -> 255.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile datasets==5.2.0 pillow==12.3.0 numpy
HF_HOME="$folder/home" "$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from datasets import Dataset, Features, Image


def stored(value, kind):
    pixels = np.full((4, 4, 3), value, kind)
    return np.asarray(Dataset.from_dict({"image": [pixels]}, features=Features({"image": Image()}))[0]["image"]).max()


found = [int(stored(*given)) for given in ((60000, np.uint16), (256, np.int32), (-1, np.int16))]
print("60000, 256 and -1 are stored as", found)
if found != [96, 0, 255]:
    sys.exit("changed: it was 96, 0 and 255")
PYTHON
