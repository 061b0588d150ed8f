#!/usr/bin/env bash
# ema-pytorch 0.8.3, with its own settings: `beta` is per ten calls of `update`, not per call (`update_every=10`, and
# the rate is not adapted to it), so an average is ten times as long as its beta says in any other program.
# Guessed beforehand: called every step, beta=0.99 has gone 63 % of the way after 100 steps (0.99 ** 100 = 0.37), as
# diffusers' and torch's averages do; `update_every` saves time and changes little.
# Seen: 10 % after 100 steps, 63 % after 1,000.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 ema-pytorch==0.8.3 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from ema_pytorch import EMA

network = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.zeros_(network.weight)
average, way = EMA(network, beta=0.99), {}
for _ in range(20_000):  # past its warm-up
    average.update()
torch.nn.init.ones_(network.weight)
for step in range(1, 1001):
    average.update()
    way[step] = average.ema_model.weight.item()
print("100 steps:", round(way[100], 3), "wanted", round(1 - 0.99**100, 3), "1,000 steps:", round(way[1000], 3))
if abs(way[100] - 0.096) > 0.01 or abs(way[1000] - 0.634) > 0.01:
    sys.exit("changed: it was 0.096 of the way after 100 steps and 0.634 after 1,000")
PYTHON
