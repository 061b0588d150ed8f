#!/usr/bin/env bash
# torch 2.13.0 and diffusers 0.42.1: an average of bfloat16 weights is itself bfloat16, in `AveragedModel` and in
# `EMAModel`, and at the usual decays does not move: 0.001 of the difference is less than half a step of the format.
# Guessed beforehand: an average is kept in float32, or is at least near after five times 1 / (1 - decay).
# Seen, decay 0.999, weights that go from 1 to 2, 5,000 updates later: 1.0 in both; float32 1.993.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 diffusers==0.42.1 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from diffusers.training_utils import EMAModel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averages(dtype):
    network = torch.nn.Linear(1, 1, bias=False).to(dtype)
    torch.nn.init.ones_(network.weight)
    by_torch = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    by_diffusers = EMAModel(network.parameters(), decay=0.999, min_decay=0.999)
    for step in range(5002):
        if step == 2:
            torch.nn.init.constant_(network.weight, 2)
        by_torch.update_parameters(network)
        by_diffusers.step(network.parameters())
    return [round(value.item(), 3) for value in (by_torch.module.weight, by_diffusers.shadow_params[0])]


half, single = averages(torch.bfloat16), averages(torch.float32)
print("AveragedModel, EMAModel: bfloat16", half, "float32", single)
if half != [1, 1] or min(single) < 1.99:
    sys.exit("changed: bfloat16 stayed at 1 in both, float32 reached 1.993")
PYTHON
