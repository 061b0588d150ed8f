#!/usr/bin/env bash
# accelerate 1.15.0: with the default `even_batches`, two processes and a batch of 16 each, a set of 17 rows makes 32 of
# each epoch, and one of 3 rows 32: every process's batch is filled up from the start of the epoch, not only to equal
# counts.
# Guessed beforehand: at most one row is drawn again, so that both processes have as many.
# Seen, rows of an epoch over both: 17 -> 32, 33 -> 64, 3 -> 32; with `even_batches=False` 17, 33, 3.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 accelerate==1.15.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, SequentialSampler


def drawn(rows, even):
    batches = BatchSampler(SequentialSampler(range(rows)), 16, drop_last=False)
    of_each = [BatchSamplerShard(batches, 2, rank, even_batches=even) for rank in range(2)]
    return sum(len(batch) for shard in of_each for batch in shard)


found = {rows: (drawn(rows, True), drawn(rows, False)) for rows in (17, 33, 3)}
for rows, (even, uneven) in found.items():
    print(f"{rows} rows: {even} drawn, with even_batches=False {uneven}")
if found != {17: (32, 17), 33: (64, 33), 3: (32, 3)}:
    sys.exit("changed: it was 32, 64 and 32")
PYTHON
