#!/usr/bin/env bash
# diffusers 0.42.1: the "cosine" schedule of `diffusers.optimization` goes up again behind its last step, to the full
# rate at twice the length. Who trains longer than planned, or counts steps otherwise, trains at a growing rate.
# Guessed beforehand: it stays at 0, as "linear", "polynomial" and "cosine_with_restarts" do.
# Seen, 100 steps planned, share of the rate at 100 / 150 / 200: cosine 0 / 0.5 / 1; the others 0 / 0 / 0.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 diffusers==0.42.1 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from diffusers.optimization import get_scheduler


def shares(name):
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=0, num_training_steps=100)
    rates = []
    for _ in range(201):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [round(rates[step], 2) for step in (100, 150, 200)]


for name in ("cosine", "linear", "polynomial", "cosine_with_restarts"):
    found = shares(name)
    print(name, found)
    if found != ([0.0, 0.5, 1.0] if name == "cosine" else [0.0, 0.0, 0.0]):
        sys.exit("changed: cosine was at 0, 0.5, 1, the others at 0")
PYTHON
