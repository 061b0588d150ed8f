import torch
from torch import nn

from fastddpm.training.ema import EMA


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))


def move(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model(torch.randn(4, 1, 8, 8) * 3 + 1)


def test_ema_follows_the_recurrence_with_warm_up():
    model = small_model()
    ema = EMA(model, decay=0.9)
    expected = {name: t.clone().double() for name, t in model.state_dict().items() if t.is_floating_point()}
    for n in range(120):
        move(model)
        ema.update(n)
        decay = min(0.9, (1 + n) / (10 + n))
        for name, value in expected.items():
            value.mul_(decay).add_(model.state_dict()[name].double(), alpha=1 - decay)
    for name, value in expected.items():
        scale = value.abs().max()
        assert (ema.model.state_dict()[name].double() - value).abs().max() < 120 * torch.finfo(
            torch.float32
        ).eps * scale


def test_ema_carries_batch_norms_statistics():
    model = small_model()
    ema = EMA(model, decay=0.5)
    for n in range(30):
        move(model)
        ema.update(n)
    averaged = ema.model[1]
    assert not torch.allclose(averaged.running_mean, torch.zeros(3), atol=0.05)
    assert not torch.allclose(averaged.running_var, torch.ones(3), atol=0.05)
    assert averaged.num_batches_tracked == 30


def test_decay_0_copies():
    model = small_model()
    ema = EMA(model, decay=0.0)
    move(model)
    ema.update(0)
    for name, tensor in model.state_dict().items():
        assert torch.equal(ema.model.state_dict()[name], tensor)


def test_ema_model_is_apart_and_in_eval_mode():
    model = small_model()
    ema = EMA(model, decay=0.9)
    assert not ema.model.training
    before = ema.model[0].weight.clone()
    move(model)
    assert torch.equal(ema.model[0].weight, before)
