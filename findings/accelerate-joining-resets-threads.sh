#!/usr/bin/env bash
# accelerate 1.15.0, torch 2.13.0: when two CPU processes join without OMP_NUM_THREADS, Accelerate calls
# `torch.set_num_threads` itself, with the physical cores over the processes of a node: a number that a program had set
# before is gone. With OMP_NUM_THREADS set it stays.
# Guessed beforehand: threads that a program sets by `torch.set_num_threads` are left alone.
# Seen: 5 threads asked for, another number after `PartialState(cpu=True)`; with OMP_NUM_THREADS=1 still 5.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 accelerate==1.15.0 numpy
cat > "$folder/join.py" <<'PYTHON'
import warnings

import torch
from accelerate import PartialState

warnings.simplefilter("ignore")
torch.set_num_threads(5)
state = PartialState(cpu=True)
if state.is_main_process:
    print(torch.get_num_threads())
PYTHON
joined() {
    local port="$1" shared=(env MASTER_ADDR=127.0.0.1 MASTER_PORT="$1" WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 "${@:2}")
    "${shared[@]}" RANK=1 LOCAL_RANK=1 "$folder/venv/bin/python" "$folder/join.py" > "$folder/other" &
    "${shared[@]}" RANK=0 LOCAL_RANK=0 "$folder/venv/bin/python" "$folder/join.py"
    wait
}
unset OMP_NUM_THREADS MKL_NUM_THREADS
without="$(joined 29531)"
with="$(joined 29532 OMP_NUM_THREADS=1)"
echo "5 threads asked for: $without without OMP_NUM_THREADS, $with with it"
[ "$without" != 5 ] && [ "$with" = 5 ] || { echo "changed: it was another number, and 5"; exit 1; }
