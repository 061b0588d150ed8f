#!/usr/bin/env bash
# torch 2.13.0: inside one `torch.autocast` the bfloat16 copy of a weight is made once and kept: what changes the weight
# in between (an optimizer's step, averaged weights copied in for a preview) is not seen before the context ends.
# Guessed beforehand: a layer computes with the weights that it has; at least a weight changed in place is cast anew.
# Seen: a loop with the context around it has the same loss three times; a layer whose weights were set to 0 answers as
# before, drawn under `no_grad` too. With a context in each step all is right.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import sys

import torch


def answers(*, one_context):
    torch.manual_seed(0)
    layer, numbers = torch.nn.Linear(2, 2), torch.ones(1, 2)
    optimizer, losses = torch.optim.SGD(layer.parameters(), lr=0.1), []
    around = torch.autocast("cpu", torch.bfloat16) if one_context else contextlib.nullcontext()
    with around:
        for _ in range(3):
            with torch.autocast("cpu", torch.bfloat16):
                loss = (layer(numbers) ** 2).sum()
            losses.append(round(loss.item(), 4))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        for weights in layer.parameters():
            torch.nn.init.zeros_(weights)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            drawn = layer(numbers).abs().sum().item()
    return losses, drawn


kept, drawn = answers(one_context=True)
wanted, nothing = answers(one_context=False)
print("one context: losses", kept, "answer with weights of 0:", drawn)
print("one a step: losses", wanted, "answer with weights of 0:", nothing)
if len(set(kept)) > 1 or drawn == 0 or wanted[2] >= wanted[0] or nothing != 0:
    sys.exit("changed: the losses stayed and the answer was not 0 in one context")
PYTHON
