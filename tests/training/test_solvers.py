"""A run draws all its pictures by `sample.scheduler`, and so does what it saves; its weights stay the same."""

import json

import numpy as np
import pytest
from PIL import Image

from fastddpm import FastDDPMPipeline
from fastddpm.schedulers.named import name_of
from tests.training.runs import final_tensors, train_here

PICTURES = ("samples.png", "denoising.png", "variations.png")


@pytest.mark.parametrize("name", [pytest.param("ddim", marks=pytest.mark.slow), "unipc"])
def test_run_draws_by_the_solver_of_its_config(tmp_path, image_folder, name):
    shared = {"train.num_images_seen": "16", "watch.preview_every_images": "16", "sample.num_inference_steps": "4"}
    by_default = train_here(tmp_path / "ddpm", image_folder, **shared)
    run = train_here(tmp_path / "solver", image_folder, **{**shared, "sample.scheduler": name})
    for picture in PICTURES:
        assert not np.array_equal(*(np.asarray(Image.open(folder / picture)) for folder in (run, by_default))), picture
    weights, same = final_tensors(run, 2), final_tensors(by_default, 2)
    assert all(np.array_equal(weights[key], same[key]) for key in same)
    assert json.loads((run / "model_index.json").read_text())["scheduler"][0] == "diffusers"
    pipeline = FastDDPMPipeline.from_pretrained(run)
    assert name_of(pipeline.scheduler) == name
    images = pipeline(seeds=range(4), micro_batch_size=4, output_type="pt").images
    kept = np.load(next((run / "previews").glob("*.npz")))["images"]
    assert np.abs(kept.astype(int) - (images * 255).round().numpy().astype(int)).max() <= 1
