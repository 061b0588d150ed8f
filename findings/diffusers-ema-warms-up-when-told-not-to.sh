#!/usr/bin/env bash
# diffusers 0.42.1: `EMAModel(decay=0.9999, use_ema_warmup=False)`, the default, warms up: its decay is (1 + n) / (10 +
# n) up to 0.9999, and lower than with `use_ema_warmup=True` at the same step (power 2/3) for a start.
# Guessed beforehand: False means 0.9999 from the first step on; True is the slow start.
# Seen at steps 1, 2, 10, 100: False 0, 0.18, 0.53, 0.92; True 0, 0.37, 0.78, 0.95.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 diffusers==0.42.1 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from diffusers.training_utils import EMAModel


def decays(warmup):
    layer = torch.nn.Linear(1, 1)
    average = EMAModel(layer.parameters(), decay=0.9999, use_ema_warmup=warmup)
    found = {}
    for step in range(1, 101):
        average.step(layer.parameters())
        found[step] = round(average.cur_decay_value, 2)
    return [found[step] for step in (1, 2, 10, 100)]


off, on = decays(False), decays(True)
print("use_ema_warmup=False:", off, "True:", on)
if off != [0.0, 0.18, 0.53, 0.92] or on != [0.0, 0.37, 0.78, 0.95]:
    sys.exit("changed: it was 0, 0.18, 0.53, 0.92 and 0, 0.37, 0.78, 0.95")
PYTHON
