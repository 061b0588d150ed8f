"""A notebook asks an object for `_repr_png_` and shows what it gets."""

import io

import numpy as np
import pytest
from PIL import Image

from fastddpm import CutMixPipeline, FastDDPMPipeline, VariationPipeline
from fastddpm.report.figures import grid
from tests.conftest import tiny_unet


def as_picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
def test_output_shows_its_images_in_a_notebook(scheduler, channels):
    unet = tiny_unet(in_channels=channels, out_channels=channels)
    made = FastDDPMPipeline(unet, scheduler)(seeds=range(3), num_inference_steps=2)
    arrays = np.stack([np.asarray(image).reshape(8, 8, channels).transpose(2, 0, 1) for image in made.images])
    assert (as_picture(made._repr_png_()) == np.asarray(grid(arrays))).all()
    for pipeline, given in ((VariationPipeline, made.images), (CutMixPipeline, made.images)):
        partners = () if pipeline is VariationPipeline else (made.images[::-1],)
        changed = pipeline(unet, scheduler)(given, *partners, start_timestep=5, seeds=range(3))
        assert as_picture(changed._repr_png_()).shape == as_picture(made._repr_png_()).shape


def test_output_of_tensors_shows_no_picture(unet, scheduler):
    assert FastDDPMPipeline(unet, scheduler)(2, num_inference_steps=2, output_type="latent")._repr_png_() is None
