#!/usr/bin/env bash
# torch 2.13.0: `torch.distributed.checkpoint.state_dict.get_state_dict` before the first step takes a step with
# gradients of zero to fill the optimizer's state, and AdamW counts it: its first steps are then too short.
# Guessed beforehand: to read a state changes nothing.
# Seen with a gradient of 1: steps of 1, 1, 1 times the learning rate; after reading the state 0.74, 0.86, 0.91. SGD
# with momentum is as before.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch.distributed.checkpoint.state_dict import get_state_dict


def first_steps(read_before, optimizer_of):
    layer = torch.nn.Linear(1, 1, bias=False)
    optimizer = optimizer_of(layer.parameters())
    if read_before:
        get_state_dict(layer, optimizer)
    moved = []
    for _ in range(3):
        before = layer.weight.item()
        layer.weight.grad = torch.ones(1, 1)
        optimizer.step()
        moved.append(round((before - layer.weight.item()) / 0.1, 2))
    return moved


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.0)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.5)


left_alone, read = first_steps(False, adamw), first_steps(True, adamw)
print("AdamW, lr:", left_alone, "after get_state_dict:", read)
if left_alone != [1.0, 1.0, 1.0] or read != [0.74, 0.86, 0.91]:
    sys.exit("changed: it was 1, 1, 1 and 0.74, 0.86, 0.91 of the learning rate")
if first_steps(False, sgd) != first_steps(True, sgd):
    sys.exit("changed: SGD was as before")
PYTHON
