#!/usr/bin/env bash
# torchmetrics 1.9.0: `MemorizationInformedFrechetInceptionDistance` takes the distance to the nearest generated picture
# and averages it over the *real* ones, so that a generator of nothing but copies of some real pictures passes.
# Guessed beforehand: the mean over the generated ones, as the measure was proposed (Bai et al. 2021): all copies, all
# punished.
# Seen, over the FID of the same features: 20 generated, all copies of 20 of 100 real: 1.0 times; 1,000 generated of
# which 900 are new and 100 the copies of all real: more than 1e6 times.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 torchmetrics==1.9.0 numpy scipy
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance

warnings.simplefilter("ignore")


class Pixels(torch.nn.Module):
    num_features = 48

    def forward(self, pictures):
        return pictures.flatten(1).float() - 127.5


def over_fid(real, generated):
    values = []
    for kind in (MemorizationInformedFrechetInceptionDistance, FrechetInceptionDistance):
        measure = kind(feature=Pixels())
        measure.update(real, real=True)
        measure.update(generated, real=False)
        values.append(measure.compute().item())
    return values[0] / values[1]


generator = torch.Generator().manual_seed(0)
real, new = (torch.randint(0, 256, (n, 3, 4, 4), dtype=torch.uint8, generator=generator) for n in (100, 900))
all_copies, mostly_new = over_fid(real, real[:20]), over_fid(real, torch.cat([new, real]))
print(f"all copies: {all_copies:.2f} times the FID; nine tenths new: {mostly_new:.2g} times")
if not 0.99 < all_copies < 1.01 or mostly_new < 1e6:
    sys.exit("changed: it was 1.0 times, and more than 1e6 times")
PYTHON
