#!/usr/bin/env bash
# torch 2.13.0 with safetensors 0.8.0: `HuggingFaceStorageWriter` given an int beside the tensors (a step count, say)
# saves without an error a `.safetensors` file that neither safetensors nor its own reader opens.
# Guessed beforehand: a value that the format cannot hold is refused on saving, or left out.
# Seen: tensors alone are read back; with an int "header too large".
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 safetensors==0.8.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

warnings.simplefilter("ignore")


def saved(state):
    folder = tempfile.mkdtemp()
    dcp.save(state, storage_writer=HuggingFaceStorageWriter(folder))
    (file,) = Path(folder).glob("*.safetensors")
    return file


weights = {"weight": torch.arange(4.0)}
print("tensors alone:", load_file(saved(weights)))
try:
    file = saved({**weights, "step": 3})
except Exception as error:
    sys.exit(f"changed: refused on saving: {error}")
print("with an int:", file.name, file.stat().st_size, "bytes")
try:
    sys.exit(f"changed: it reads as {load_file(file)}")
except SafetensorError as error:
    print("SafetensorError:", error)
PYTHON
