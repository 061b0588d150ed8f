#!/usr/bin/env bash
# diffusers 0.42.1: `add_noise` of the multistep solvers (DPM-Solver, UniPC, DEIS) is not that of the training schedule.
# As made, they give timestep t the noise of 999 - t, so that a network trained with one learns the schedule upside
# down; after `set_timesteps` for a preview, a timestep that is none of the preview's gets the noise of the preview's
# *last* step. Nothing is said.
# Guessed beforehand: as in DDPM and DDIM, the share of noise at t is sqrt(1 - alpha_bar_t), always.
# Seen, share of noise at t = 100, 700, 900: DDPM and DDIM 0.324, 0.997, 1.000; the three others as made 1.000, 0.777,
# 0.321, with 20 steps set 0.324 (it is one of the twenty), 0.173, 0.173.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 diffusers==0.42.1 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
)

AT = torch.tensor([100, 700, 900])
RIGHT, MIRRORED, LAST = [0.324, 0.997, 1.0], [1.0, 0.777, 0.321], [0.324, 0.173, 0.173]


def shares(scheduler):
    return [round(share, 3) for share in scheduler.add_noise(torch.zeros(3, 1), torch.ones(3, 1), AT).flatten().tolist()]


for kind in (DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler, DEISMultistepScheduler):
    scheduler = kind()
    as_made = shares(scheduler)
    scheduler.set_timesteps(20)
    found = (as_made, shares(scheduler))
    print(kind.__name__, "as made", found[0], "with 20 steps set", found[1])
    if found != ((RIGHT, RIGHT) if kind in (DDPMScheduler, DDIMScheduler) else (MIRRORED, LAST)):
        sys.exit(f"changed: it was {RIGHT} for DDPM and DDIM, {MIRRORED} and {LAST} for the others")
PYTHON
