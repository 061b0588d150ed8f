#!/usr/bin/env bash
# datasets 5.2.0 with huggingface-hub 2.4.0: for a name whose Hub refuses connections, `load_dataset` asks six times, waits
# some 20 s in all, and writes the address to the console at each try. `HfApi.dataset_info` of the same name fails at once.
# Guessed beforehand: one attempt, as a refused connection is no time-out.
# Seen: 5 lines "Retrying in", 23 s; dataset_info: 0.0 s.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 huggingface-hub==2.4.0
env -u HF_HUB_OFFLINE HF_HOME="$folder/home" HF_ENDPOINT=http://127.0.0.1:9 "$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import logging
import sys
import time

import datasets
from huggingface_hub import HfApi
from huggingface_hub.utils import logging as hub_logging

said = io.StringIO()
handler = logging.StreamHandler(said)
hub_logging.get_logger("huggingface_hub").addHandler(handler)
before = time.monotonic()
with contextlib.suppress(Exception):
    HfApi().dataset_info("someone/nothing")
asked_once = time.monotonic() - before
before = time.monotonic()
try:
    datasets.load_dataset("someone/nothing")
    sys.exit("changed: it loads")
except Exception as error:
    print(type(error).__name__, str(error).splitlines()[0])
seconds, retries = time.monotonic() - before, said.getvalue().count("Retrying in")
print(f"load_dataset: {retries} retries, {seconds:.0f} s; dataset_info: {asked_once:.1f} s")
if retries != 5 or seconds < 15 or asked_once > 5:
    sys.exit("changed: it was 5 retries in some 20 s, and an answer at once")
PYTHON
