#!/usr/bin/env bash
# accelerate 1.15.0: with gradient accumulation over 4, an epoch of 5 batches ends with a step made of one batch, and
# its gradient is divided by 4 all the same: a plain optimizer moves a quarter of the way.
# Guessed beforehand: divided by how many were accumulated, or the rest is carried into the next epoch.
# Seen, SGD, rate 1, a gradient of 1 for each batch: the two steps of each epoch move 1 and 0.25.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 accelerate==1.15.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
layer = torch.nn.Linear(1, 1, bias=False)
layer, optimizer, loader = accelerator.prepare(
    layer, torch.optim.SGD(layer.parameters(), lr=1.0), DataLoader(TensorDataset(torch.ones(5, 1)))
)
moved = []
for _ in range(2):
    for (row,) in loader:
        with accelerator.accumulate(layer):
            before = layer.weight.item()
            accelerator.backward(layer(row).mean())
            optimizer.step()
            optimizer.zero_grad()
            if accelerator.sync_gradients:
                moved.append(round(before - layer.weight.item(), 3))
print("moved by", moved)
if moved != [1.0, 0.25, 1.0, 0.25]:
    sys.exit("changed: it was 1 and 0.25 in each epoch")
PYTHON
