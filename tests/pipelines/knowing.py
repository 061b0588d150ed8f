"""A model that knows the image, with which pipelines can be held against arithmetic."""

import torch
from torch import nn


class Knows(nn.Module):
    """Predicts, in the scheduler's own terms, exactly what leads from `x_0` to the sample it is given."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, config, scheduler, x_0):
        super().__init__()
        self.config, self.scheduler, self.x_0, self.timesteps = config, scheduler, x_0, []

    def forward(self, sample, timestep, class_labels=None):
        self.timesteps.append(int(timestep))
        bar = self.scheduler.alphas_cumprod.double()[int(timestep)]
        x_0 = self.x_0.double().expand_as(sample)
        noise = (sample.double() - bar.sqrt() * x_0) / (1 - bar).sqrt()
        kinds = {"epsilon": noise, "sample": x_0, "v_prediction": bar.sqrt() * noise - (1 - bar).sqrt() * x_0}
        return type("Output", (), {"sample": kinds[self.scheduler.config.prediction_type].float()})
