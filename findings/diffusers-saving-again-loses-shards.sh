#!/usr/bin/env bash
# diffusers 0.42.1: `save_pretrained` into a folder that holds shards. Of a network saved twice, as itself and as the
# variant "ema", the second save removes the shards of the first and leaves its index. Saved in one file after shards,
# the folder does not load any more: the old index goes before the new file.
# Guessed beforehand: what is saved last loads, and a variant is left alone.
# Seen: none of the "ema" shards is left once the plain network is saved; the one-file save asks for a shard that the
# save itself removed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 diffusers==0.42.1 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import tempfile
from pathlib import Path

from diffusers import UNet2DModel
from diffusers.utils import logging

logging.set_verbosity_error()
blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (32,)}
network = UNet2DModel(sample_size=8, layers_per_block=1, **blocks)


def fails(folder, **options):
    try:
        UNet2DModel.from_pretrained(folder, **options)
    except OSError as error:
        print(type(error).__name__, str(error)[-120:])
        return True
    return False


twice = Path(tempfile.mkdtemp())
network.save_pretrained(twice, max_shard_size="50KB", variant="ema")
shards = len(list(twice.glob("*.ema-*")))
network.save_pretrained(twice, max_shard_size="50KB")
left = len(list(twice.glob("*.ema-*")))
print("shards of the variant:", shards, "and after the plain network was saved:", left)
one = Path(tempfile.mkdtemp())
network.save_pretrained(one, max_shard_size="50KB")
network.save_pretrained(one)
print(sorted(path.name for path in one.iterdir()))
if shards < 2 or left or not fails(twice, variant="ema") or not fails(one):
    sys.exit("changed: the variant's shards were removed, and shards then one file did not load")
PYTHON
