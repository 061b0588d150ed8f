#!/usr/bin/env bash
# accelerate 1.15.0 with torch 2.13.0: `Accelerator.save_model` of a network wrapped by torch.compile names its weights
# `_orig_mod.*`; `load_checkpoint_in_model` then fills a plain network with nothing and raises nothing.
# Guessed beforehand: names of the network inside (as `Accelerator.save_state` and `unwrap_model` have them), or a
# refusal.
# Seen: keys `_orig_mod.bias`, `_orig_mod.weight`; loaded, the plain layer keeps its random weights.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 accelerate==1.15.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import tempfile

import torch
from accelerate import Accelerator, load_checkpoint_in_model
from safetensors.torch import load_file

accelerator, folder = Accelerator(cpu=True), tempfile.mkdtemp()
trained = torch.nn.Linear(2, 1)
accelerator.save_model(torch.compile(trained), folder)
names = sorted(load_file(f"{folder}/model.safetensors"))
print(names)
fresh = torch.nn.Linear(2, 1)
before = fresh.weight.detach().clone()
load_checkpoint_in_model(fresh, folder)
print("weights of the fresh layer moved:", not torch.equal(before, fresh.weight))
if names != ["_orig_mod.bias", "_orig_mod.weight"] or not torch.equal(before, fresh.weight):
    sys.exit("changed: the names were _orig_mod.*, and nothing was loaded")
PYTHON
