#!/usr/bin/env bash
# accelerate 1.15.0, two processes: `gather_for_metrics` cuts the last gathered tensor to the pictures that are left,
# whatever its rows are: where a picture gives several (crops, patches, draws), scores of the last pictures are lost.
# Guessed beforehand: the rows of the pictures that were repeated to fill the batch are cut, however many each has.
# Seen: 13 pictures with two rows each: 21 of 26 rows; pictures 11 and 12 have none, 10 has one. One row each: 13 of 13.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 accelerate==1.15.0 numpy
ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import sys
import tempfile
from pathlib import Path

code = Path(tempfile.mkdtemp(), "gather.py")
code.write_text("""
import sys
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

accelerator, found = Accelerator(cpu=True), {}
for each in (1, 2):
    loader = accelerator.prepare(DataLoader([torch.tensor(picture) for picture in range(13)], batch_size=4))
    rows = [accelerator.gather_for_metrics(batch.repeat_interleave(each)).tolist() for batch in loader]
    found[each] = sum(rows, [])
accelerator.print(accelerator.num_processes, "processes:", found)
accelerator.end_training()
if accelerator.num_processes != 2 or found[1] != list(range(13)) or len(found[2]) != 21 or max(found[2]) != 10:
    sys.exit("changed: it was 13 rows of 13, then 21 of 26 with none of pictures 11 and 12")
""")
sys.argv = ["torchrun", "--nproc_per_node", "2", "--master_port", "29531", str(code)]
from torch.distributed.run import main  # noqa: E402

main()
PYTHON
