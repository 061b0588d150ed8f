#!/usr/bin/env bash
# accelerate 1.15.0 with torch 2.13.0: a shuffled loader resumed in mid-epoch by `load_state` and `skip_first_batches`,
# as its guide shows, draws rows of this epoch again and never reaches others.
# Guessed beforehand: the saved random state brings the order back, so that the rest of the epoch is exactly what was
# left.
# Seen, 32 of 64 rows before the stop: 15 of the 32 after it had been drawn before; with
# `DataLoaderConfiguration(use_seedable_sampler=True)` none.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 accelerate==1.15.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import tempfile

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed


def started(seedable):
    set_seed(7)
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=seedable))
    rows = torch.utils.data.TensorDataset(torch.arange(64))
    loader = torch.utils.data.DataLoader(rows, batch_size=8, shuffle=True)
    return accelerator, accelerator.prepare(loader)


def drawn_twice(seedable):
    folder = tempfile.mkdtemp()
    accelerator, loader = started(seedable)
    before = []
    for number, (batch,) in enumerate(loader, 1):
        before += batch.tolist()
        if number == 4:
            accelerator.save_state(folder)
            break
    accelerator, loader = started(seedable)
    accelerator.load_state(folder)
    after = [row for (batch,) in accelerator.skip_first_batches(loader, 4) for row in batch.tolist()]
    assert len(before) == len(after) == 32
    return len(set(before) & set(after))


found = {"defaults": drawn_twice(False), "use_seedable_sampler": drawn_twice(True)}
print("of 32 rows after the stop, drawn before it:", found)
if found["defaults"] == 0 or found["use_seedable_sampler"] != 0:
    sys.exit("changed: the defaults repeated rows, the seedable sampler did not")
PYTHON
