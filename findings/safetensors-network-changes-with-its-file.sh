#!/usr/bin/env bash
# diffusers 0.42.1 with safetensors 0.8.0: a network that was loaded changes by itself when its file is written over in
# place (`cp`, `rsync --inplace`, `shutil.copyfile`), since its weights are a map of that file: a program that draws
# while newer weights are copied in goes on with the newer ones, or with half of each.
# Guessed beforehand: `from_pretrained` has read the weights, and what becomes of the file no longer matters.
# Seen: all weights are 1 after loading; another network's file is copied over; all are 2 (`load_file` the same).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 diffusers==0.42.1 safetensors==0.8.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file

FILE = "diffusion_pytorch_model.safetensors"
root = Path(tempfile.mkdtemp())
blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (32,)}
for value in (1, 2):
    network = UNet2DModel(sample_size=8, layers_per_block=1, **blocks)
    with torch.no_grad():
        for weights in network.parameters():
            weights.fill_(value)
    network.save_pretrained(root / str(value))


def values(tensors):
    return sorted({value for tensor in tensors for value in tensor.detach().flatten().tolist()})


loaded, read = UNet2DModel.from_pretrained(root / "1"), load_file(root / "1" / FILE)
before = values(loaded.parameters())
shutil.copyfile(root / "2" / FILE, root / "1" / FILE)
print("network", before, "->", values(loaded.parameters()), "load_file ->", values(read.values()))
if before != [1] or values(loaded.parameters()) != [2] or values(read.values()) != [2]:
    sys.exit("changed: it was 1 in the beginning and 2, in both, once the file was written over")
PYTHON
