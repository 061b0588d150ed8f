#!/usr/bin/env bash
# diffusers 0.42.1: `VaeImageProcessor.preprocess`, which the pipelines that start from a picture share, takes an array
# of uint8 (what `np.asarray(image)` gives) for numbers from 0 to 1: 200 becomes 399, where a Pillow image gives 0.57.
# And a picture of 28 x 28 becomes 24 x 24, the multiple of 8 below.
# Guessed beforehand: uint8 is divided by 255 as a Pillow image is, or refused; a size that does not fit is refused.
# Seen: 399.0 for 0.569; (24, 24) for (28, 28).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 diffusers==0.42.1 pillow==12.3.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

image = Image.new("RGB", (28, 28), (200, 200, 200))
processor = VaeImageProcessor()
from_image, from_array = processor.preprocess(image), processor.preprocess(np.asarray(image))
print("image:", from_image.max().item(), tuple(from_image.shape[2:]), "its array:", from_array.max().item())
if abs(from_image.max() - 0.569) > 0.01 or from_array.max() != 399 or from_image.shape[2:] != (24, 24):
    sys.exit("changed: it was 0.569 of 24 x 24, and 399 from the array")
PYTHON
