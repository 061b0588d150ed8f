import json

import pytest
import torch
from accelerate import Accelerator

from fastddpm.training.metrics import LossMeter, MetricsLog, read_metrics


def test_meter_is_the_mean_by_timestep_quartile():
    meter = LossMeter(20, torch.device("cpu"))
    meter.add(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 4, 19]))
    meter.add(torch.tensor([7.0]), torch.tensor([10]))
    meter.gather(Accelerator(cpu=True))
    mean, by_quartile = meter.read_and_reset()
    assert mean == pytest.approx(4.0)
    assert by_quartile == [2.0, None, 7.0, 5.0]
    assert meter.sums.sum() == 0


@pytest.mark.parametrize("num_timesteps", [4, 7, 1000])
def test_every_timestep_falls_into_a_quartile(num_timesteps):
    meter = LossMeter(num_timesteps, torch.device("cpu"))
    meter.add(torch.ones(num_timesteps), torch.arange(num_timesteps))
    assert meter.sums[1].sum() == num_timesteps
    assert (meter.sums[1] > 0).all()


def test_f33_torn_last_line_and_later_steps_are_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": s}) + "\n" for s in (10, 20, 30)) + '{"step": 4')
    MetricsLog(path, enabled=True).cut_off_after(20)
    assert [row["step"] for row in read_metrics(path)] == [10, 20]
    log = MetricsLog(path, enabled=True)
    log.write(step=30)
    assert [row["step"] for row in read_metrics(path)] == [10, 20, 30]


def test_rows_are_json_whatever_the_numbers(tmp_path):
    sent, nan = [], float("nan")
    log = MetricsLog(tmp_path / "metrics.jsonl", enabled=True, send=sent.append)
    log.write(step=1, loss=nan, loss_by_quartile=[0.5, nan], others={"ema-0.9": float("inf")}, images_seen=8)
    line = (tmp_path / "metrics.jsonl").read_text()
    row = {"step": 1, "loss": None, "loss_by_quartile": [0.5, None], "others": {"ema-0.9": None}, "images_seen": 8}
    assert json.loads(line, parse_constant=pytest.fail) == row
    assert sent == [row]


def test_other_ranks_write_nothing(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", enabled=False)
    log.write(step=1)
    log.cut_off_after(0)
    assert list(tmp_path.iterdir()) == []
