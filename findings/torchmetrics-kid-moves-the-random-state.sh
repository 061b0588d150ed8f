#!/usr/bin/env bash
# torchmetrics 1.9.0: `KernelInceptionDistance.compute` draws its subsets from torch's global generator: a run that
# looks at its KID goes on with other noise than one that does not, and the value itself depends on what was drawn
# before.
# Guessed beforehand: to measure changes nothing, or a generator of its own is used.
# Seen: the global state has moved; two values of the same features differ.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 torchmetrics==1.9.0 numpy scipy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torchmetrics.image.kid import KernelInceptionDistance


class Pixels(torch.nn.Module):
    num_features = 12

    def forward(self, pictures):
        return pictures.flatten(1).float() / 255


def value(seed):
    generator = torch.Generator().manual_seed(0)
    measure = KernelInceptionDistance(feature=Pixels(), subsets=5, subset_size=50)
    for real in (True, False):
        measure.update(torch.randint(0, 256, (200, 3, 2, 2), dtype=torch.uint8, generator=generator), real=real)
    torch.manual_seed(seed)
    before = torch.get_rng_state()
    return measure.compute()[0].item(), not torch.equal(before, torch.get_rng_state())


(first, moved), (second, _) = value(0), value(1)
print("the global state moved:", moved, "values:", first, second)
if not moved or first == second:
    sys.exit("changed: the state moved, the values differed")
PYTHON
