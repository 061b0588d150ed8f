import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from fastddpm import CutMixPipeline, FusedDDPMScheduler
from fastddpm.pipelines.cutmix import draw_boxes, masks_of_boxes, symmetric_beta
from tests.conftest import tiny_unet
from tests.pipelines.knowing import Knows

BOX = (2, 3, 4, 5)


@pytest.fixture
def pairs():
    torch.manual_seed(0)
    return torch.rand(3, 1, 8, 8), torch.rand(3, 1, 8, 8)


@pytest.fixture
def pipeline(unet, scheduler):
    made = CutMixPipeline(unet, scheduler)
    made.set_progress_bar_config(disable=True)
    return made


def pasted(a, b, box=BOX):
    top, left, height, width = box
    wanted = a.clone()
    wanted[..., top : top + height, left : left + width] = b[..., top : top + height, left : left + width]
    return wanted


def test_start_0_gives_the_pastes(pipeline, pairs):
    found = pipeline(*pairs, start_timestep=0, boxes=BOX, output_type="pt")
    assert torch.allclose(found.images, pasted(*pairs), atol=1e-6)
    assert torch.allclose(found.pastes, found.images)
    assert found.shares == [20 / 64] * 3


def test_pastes_are_what_was_noised_and_not_what_was_drawn(pipeline, pairs):
    found = pipeline(*pairs, start_timestep=10, boxes=BOX, seeds=range(3), output_type="pt")
    assert torch.allclose(found.pastes, pasted(*pairs), atol=1e-6)
    assert not torch.allclose(found.images, found.pastes, atol=0.01)


def test_start_300_is_index_299_of_the_paste(unet, pairs):
    """A model that knows the noise leads from there to the very paste."""
    scheduler = FusedDDPMScheduler()
    pipeline = CutMixPipeline(unet, scheduler)
    pipeline.unet = knows = Knows(unet.config, scheduler, pasted(*pairs) * 2 - 1)
    pipeline.set_progress_bar_config(disable=True)
    found = pipeline(*pairs, start_timestep=300, boxes=BOX, output_type="pt", seeds=range(3))
    assert knows.timesteps == list(range(299, -1, -1))
    assert (found.images - pasted(*pairs)).abs().max() < 0.01
    assert (found.noised - found.pastes).abs().max() > 0.1


def test_boxes_masks_and_pictures_of_masks_say_the_same(pipeline, pairs):
    mask = masks_of_boxes([BOX], 8, 8)
    picture = Image.fromarray(mask[0, 0].numpy())
    gray = Image.fromarray((mask[0, 0].numpy() * 255).astype(np.uint8))
    ways = [
        {"boxes": BOX}, {"boxes": [BOX] * 3}, {"boxes": torch.tensor([BOX] * 6)}, {"masks": mask},
        {"masks": mask[0, 0]}, {"masks": mask.numpy()}, {"masks": picture}, {"masks": [gray] * 3},
    ]  # fmt: skip
    drawn = [pipeline(*pairs, start_timestep=5, num_blends=2, seeds=range(6), output_type="pt", **way) for way in ways]
    for other in drawn[1:]:
        assert torch.equal(other.images, drawn[0].images)
        assert torch.equal(other.masks, drawn[0].masks)
    assert drawn[0].images.shape == (6, 1, 8, 8)


def test_drawn_boxes_belong_to_the_seed(pipeline, pairs):
    found = pipeline(*pairs, start_timestep=5, num_blends=4, seeds=range(12), output_type="pt", micro_batch_size=4)
    assert len({mask.numpy().tobytes() for mask in found.masks}) > 6, "each blend has its own"
    alone = pipeline(*(x[1:2] for x in pairs), start_timestep=5, seeds=[6], output_type="pt", micro_batch_size=4)
    assert torch.equal(alone.masks[0], found.masks[6])
    assert torch.equal(alone.images[0], found.images[6])
    by_generators = [
        pipeline(*pairs, start_timestep=5, generator=[torch.Generator().manual_seed(i) for i in range(3)]).masks
        for _ in range(2)
    ]
    assert torch.equal(*by_generators)


def test_one_partner_serves_all(pipeline, pairs):
    images, partners = pairs
    found = pipeline(images, partners[:1], start_timestep=0, boxes=BOX, output_type="pt")
    assert torch.allclose(found.images, pasted(images, partners[:1].expand_as(images)), atol=1e-6)


def test_classes_are_any_class_unless_they_are_given(scheduler, pairs):
    pipeline = CutMixPipeline(tiny_unet(num_class_embeds=4), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    options = {"start_timestep": 5, "boxes": BOX, "seeds": range(3), "output_type": "pt"}
    left_out = pipeline(*pairs, **options).images
    assert torch.equal(left_out, pipeline(*pairs, class_labels=[3, 3, 3], **options).images)
    assert not torch.equal(left_out, pipeline(*pairs, class_labels=[0, 1, 2], **options).images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": BOX, "masks": np.ones((8, 8), bool)}, "got both boxes and masks"),
        ({"boxes": (2, 3, 7, 5)}, r"leave the image of 8x8"),
        ({"boxes": (-1, 3, 2, 2)}, r"leave the image of 8x8"),
        ({"boxes": (2.0, 3.0, 4.0, 5.0)}, r"wanted \(top, left, height, width\)"),
        ({"boxes": [BOX] * 2}, "got 2 boxes or masks for 3 pairs and 3 results"),
        ({"masks": np.ones((8, 8))}, "masks are torch.float64; wanted bool"),
        ({"masks": np.ones((9, 8), bool)}, "masks are 9x8; the model makes 8x8"),
        ({"masks": Image.new("RGB", (8, 8))}, "a mask has mode RGB"),
        ({"masks": Image.new("L", (8, 8), 100)}, "a mask has grays"),
        ({"alpha": 0.0}, "alpha is 0.0; it must be above 0"),
        ({"num_blends": 0}, "num_blends is 0"),
    ],
)
def test_what_does_not_fit_is_refused(pipeline, pairs, options, message):
    with pytest.raises(ValueError, match=message):
        pipeline(*pairs, start_timestep=5, **options)


def test_partners_that_do_not_go_up_are_refused(pipeline, pairs):
    with pytest.raises(ValueError, match="got 3 images and 2 partners; give one partner an image, or one for all"):
        pipeline(pairs[0], pairs[1][:2], start_timestep=5, boxes=BOX)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_shares_have_the_distribution_asked_for(alpha):
    uniforms = torch.rand(20_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = symmetric_beta(uniforms, alpha)
    assert stats.kstest(found.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.01
    assert stats.kstest(found.numpy(), stats.beta(2 * alpha, 2 * alpha).cdf).pvalue < 1e-6, "the test can fail"
    edges = torch.tensor([[0.0, 0.3, 0.2], [1 - 2**-32, 0.3, 0.8]], dtype=torch.float64)
    assert bool(symmetric_beta(edges, alpha).isfinite().all())


def test_boxes_are_centred_anywhere_and_cut_at_the_edges():
    uniforms = torch.rand(5_000, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    boxes = draw_boxes(uniforms, 1.0, 10, 20)
    assert masks_of_boxes(boxes, 10, 20).shape == (5_000, 1, 10, 20), "all of them lie inside"
    share = (boxes[:, 2] * boxes[:, 3]).double() / 200
    assert share.min() == 0
    assert share.max() > 0.8
    uncut = torch.tensor([[0.5, 0.125, 0.9, 0.5, 0.5]], dtype=torch.float64)  # lambda from two of them
    side = float((1 - symmetric_beta(uncut[:, :3], 1.0)).sqrt())
    assert draw_boxes(uncut, 1.0, 10, 20)[0, 2:].tolist() == [int(side * 10), int(side * 20)]
