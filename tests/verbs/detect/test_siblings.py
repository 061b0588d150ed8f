import json

import numpy as np
import pytest
from scipy import stats

from fastddpm import cli
from tests.data.test_groups import saved
from tests.data.test_siblings import shots

SETTINGS = {
    "model.block_out_channels": "[16, 32]", "model.time_embedding_dim": 16, "model.norm_type": "group",
    "model.norm_num_groups": 4, "train.num_images_seen": 6400, "train.batch_size": 32, "data.num_held_out": 80,
    "scheduler.num_train_timesteps": 200, "scheduler.beta_end": 0.1, "sample.num_images": 8,
    "sample.num_inference_steps": 8, "sample.scheduler": "unipc", "train.num_threads": 1,
}  # fmt: skip


@pytest.mark.slow
def test_new_parts_are_no_alarms_though_normal_ones_were_taken_several_times(tmp_path):
    """40 parts of 8 shots; then 60 new parts, once each. Were shots of a part on both sides, all 60 would be alarms."""
    everything = shots(100, 8)
    parts = saved(tmp_path / "parts", everything[:320])
    new = saved(tmp_path / "new", everything[320:][::8], per_part=1)
    (tmp_path / "plain.yaml").write_text("seed: 0\n")
    words = ["--config", tmp_path / "plain.yaml", "--data.source", parts, "--data.cache_dir", tmp_path / "cache"]
    words += [word for name, value in SETTINGS.items() for word in (f"--{name}", value)]
    cli.main(list(map(str, ["train", "--out", tmp_path / "run", *words])))
    cli.main(list(map(str, ["detect", tmp_path / "run", new, "--out", tmp_path / "found", "--num_threads", 1])))
    rows = json.loads((tmp_path / "found" / "detection.json").read_text())["images"]
    assert len(rows) == 60
    alarms = int(np.sum([row["is_anomaly"] for row in rows]))
    assert alarms <= stats.binom.ppf(0.999, 60, 0.05)
