#!/usr/bin/env bash
# torch 2.13.0: going through a `DataLoader` that shuffles nothing, without workers, draws from the global random state
# (a base seed for workers there are none of): a run that looks at its validation set goes on with other noise than one
# that does not.
# Guessed beforehand: only `shuffle=True` or workers draw.
# Seen: the state has moved; with a `generator` of its own given it has not.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch.utils.data import DataLoader


def moved(**options):
    before = torch.get_rng_state()
    list(DataLoader(range(4), shuffle=False, num_workers=0, **options))
    return not torch.equal(before, torch.get_rng_state())


plain, own = moved(), moved(generator=torch.Generator())
print("the global state moved:", plain, "with a generator:", own)
if not plain or own:
    sys.exit("changed: it moved, and with a generator it did not")
PYTHON
