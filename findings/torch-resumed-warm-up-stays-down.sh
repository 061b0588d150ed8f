#!/usr/bin/env bash
# torch 2.13.0: a run with `SequentialLR` (a warm-up, then cosine) is resumed in the usual order: the optimizer's state
# is loaded, the schedule is built, its state is loaded. Building it sets the rate to the warm-up's first; loading its
# state puts nothing back, and each later rate is a multiple of the one before: the rest of the run learns at a
# hundredth of its rate. `LinearLR` alone the same; a plain `CosineAnnealingLR` goes on rightly.
# Guessed beforehand: with both states loaded the rate is that of the step, in whichever order.
# Seen at steps 50 and 75 of 100: 0.587 and 0.179 uninterrupted, 0.010 and 0.003 resumed; right if the optimizer's state
# is loaded after the schedule was built.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 numpy
PYTHONWARNINGS=ignore "$folder/venv/bin/python" - <<'PYTHON'
import copy
import sys

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR


def schedule_of(optimizer):
    return SequentialLR(optimizer, [LinearLR(optimizer, 0.01, 1, 10), CosineAnnealingLR(optimizer, 90)], [10])


def rates(resumed_at=None, optimizer_first=True):
    weights, found = torch.nn.Parameter(torch.zeros(1)), []
    optimizer = torch.optim.AdamW([weights], lr=1.0)
    schedule = schedule_of(optimizer)
    for step in range(100):
        if step == resumed_at:
            states = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
            optimizer = torch.optim.AdamW([weights], lr=1.0)
            if optimizer_first:
                optimizer.load_state_dict(states[0])
            schedule = schedule_of(optimizer)
            if not optimizer_first:
                optimizer.load_state_dict(states[0])
            schedule.load_state_dict(states[1])
        weights.grad = torch.ones(1)
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [round(found[step], 3) for step in (50, 75)]


whole, resumed, other = rates(), rates(50), rates(50, optimizer_first=False)
print("uninterrupted", whole, "resumed", resumed, "resumed, the optimizer's state loaded later", other)
if whole != other or max(resumed) > 0.011:
    sys.exit("changed: resumed it was 0.010 and 0.003 for 0.587 and 0.179")
PYTHON
