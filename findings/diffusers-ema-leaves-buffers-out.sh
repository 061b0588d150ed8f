#!/usr/bin/env bash
# diffusers 0.42.1: `EMAModel.save_pretrained` of a network with BatchNorm saves running means and variances as they are
# in a fresh network (0 and 1): the average holds parameters alone, and the rest is built anew from the config.
# Guessed beforehand: buffers are averaged, or those of the trained network are saved.
# Seen, data of mean 5: the trained network's running mean is 5.0, that of the saved average 0.0.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile torch==2.13.0 diffusers==0.42.1 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import tempfile

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.training_utils import EMAModel


class Normed(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, channels=2):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(channels)


torch.manual_seed(0)
trained = Normed().train()
for _ in range(200):
    trained.norm(torch.randn(8, 2, 4, 4) + 5)
average = EMAModel(trained.parameters(), model_cls=Normed, model_config=trained.config)
average.step(trained.parameters())
folder = tempfile.mkdtemp()
average.save_pretrained(folder)
before, after = trained.norm.running_mean, Normed.from_pretrained(folder).norm.running_mean
print("running mean: trained", before.tolist(), "saved", after.tolist())
if (before - 5).abs().max() > 0.1 or after.abs().max() > 0:
    sys.exit("changed: it was 5 in the trained network, 0 in what was saved")
PYTHON
