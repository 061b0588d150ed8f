"""configs/recommended-*.yaml: each builds its network at its own size and takes two steps."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastddpm.config import load_config
from fastddpm.training.loop import train_step
from fastddpm.training.run import open_run


@pytest.fixture
def colour_folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (140, 150, 3), np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("side", [32, 64, 128])
def test_recommended_config_trains_at_its_size(side, colour_folder, tmp_path):
    config = load_config(
        f"recommended-{side}",
        {
            "output_dir": str(tmp_path / "run"), "data.source": str(colour_folder),
            "data.cache_dir": str(tmp_path / "cache"), "train.num_images_seen": 4, "train.batch_size": 2,
            "train.num_threads": 1,
        },
    )  # fmt: skip
    with open_run(config) as run:
        before = [p.detach().clone() for p in run.state.unet.parameters()]
        norms = [train_step(run).item(), train_step(run).item()]
        assert run.images.gather(torch.tensor([0]))[0].shape == (1, 3, side, side)
        changed = sum(not torch.equal(a, b) for a, b in zip(before, run.state.unet.parameters(), strict=True))
    assert all(0 < norm < 100 for norm in norms)
    assert changed > 10  # the second step moves weights: the warm-up's first one has a rate of 0


@pytest.mark.parametrize("side", [32, 64, 128])
def test_recommended_config_is_for_pictures_without_labels(side):
    config = load_config(f"recommended-{side}")
    assert config.data.image_size == side
    assert not config.model.class_conditional
    assert config.sample.guidance_scale == 1.0
