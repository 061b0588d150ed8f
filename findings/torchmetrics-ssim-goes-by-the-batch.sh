#!/usr/bin/env bash
# torchmetrics 1.9.0: SSIM without `data_range` (its default) takes the range of each batch: the same pictures score
# differently by batch size, and by which pictures lie together.
# Guessed beforehand: the range of the type, or of all pictures: one value however they are batched.
# Seen, 16 pictures of falling contrast, in batches of 16, 4, 1: 0.898, 0.887, 0.886; with `data_range=1.0` 0.898 each.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 torchmetrics==1.9.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torchmetrics.image import StructuralSimilarityIndexMeasure

generator = torch.Generator().manual_seed(0)
wanted = torch.rand(16, 1, 32, 32, generator=generator) * torch.linspace(0.1, 1, 16)[:, None, None, None]
given = (wanted + 0.05 * torch.randn(wanted.shape, generator=generator)).clamp(0, 1)


def scores(**options):
    found = []
    for size in (16, 4, 1):
        measure = StructuralSimilarityIndexMeasure(**options)
        for first in range(0, 16, size):
            measure.update(given[first : first + size], wanted[first : first + size])
        found.append(round(measure.compute().item(), 3))
    return found


default, fixed = scores(), scores(data_range=1.0)
print("batches of 16, 4, 1:", default, "with data_range:", fixed)
if default[0] - default[2] < 0.008 or len(set(fixed)) > 1:
    sys.exit("changed: it fell by more than 0.01, and was one value with data_range")
PYTHON
