#!/usr/bin/env bash
# accelerate 1.15.0: `unwrap_model(network, keep_fp32_wrapper=False)`, called to save or to draw, takes mixed precision
# from the network that goes on training: from that step on it computes in float32 (slower, more memory, another run).
# With the default the unwrapped network is not plain either: it still computes in bfloat16.
# Guessed beforehand: unwrapping gives the network inside and leaves the prepared one as it was.
# Seen, 1.003 summed twice plus 1: 3.0 before (bfloat16), 3.006 afterwards in the prepared network; unwrapped by default
# 3.0.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 accelerate==1.15.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from accelerate import Accelerator

accelerator = Accelerator(cpu=True, mixed_precision="bf16")
network = torch.nn.Linear(2, 1)
for weights in network.parameters():
    torch.nn.init.ones_(weights)
prepared, numbers = accelerator.prepare(network), torch.full((1, 2), 1.003)
before = prepared(numbers).item()
default = accelerator.unwrap_model(prepared)(numbers).item()
accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
after = prepared(numbers).item()
print("prepared", before, "unwrapped by default", default, "prepared after unwrapping without the wrapper", after)
if before != 3 or default != 3 or abs(after - 3.006) > 1e-4:
    sys.exit("changed: it was 3, 3 and 3.006")
PYTHON
