"""Verdicts on models whose truth is known: made up images, no network."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from fastddpm.config import load_config_of
from fastddpm.measures.similarity import Estimate
from fastddpm.studies.paper.claims import above, below, measure, worst
from fastddpm.studies.paper.drawings import Drawings, Seen
from fastddpm.studies.paper.settings import ReproductionConfig

SIDE, COUNT, PAIRS = 16, 40, 150


def config(**measured) -> ReproductionConfig:
    small = {
        "num_reals": 2 * PAIRS,
        "num_samples": PAIRS,
        "num_from_data": PAIRS,
        "num_inputs": COUNT,
        "num_blends": PAIRS,
        "resamples": 50,
    }
    overrides = {"output_dir": "unused", "measure.start_timesteps": [100, 300, 600, 1000]}
    return load_config_of(
        ReproductionConfig,
        "reproduce-mnist",
        overrides | {f"measure.{name}": value for name, value in (small | measured).items()},
    )


def pictures(count: int, seed: int) -> np.ndarray:
    """Smooth ones: a bright spot somewhere on a slope."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    rows, columns, slopes = (
        rng.uniform(0, SIDE, (count, 1, 1)),
        rng.uniform(0, SIDE, (count, 1, 1)),
        rng.normal(0, 3, (count, 1, 1)),
    )
    spots = 150 * np.exp(-((y - rows) ** 2 + (x - columns) ** 2) / 12)
    return (spots + 60 + slopes * (x - SIDE / 2)).clip(0, 255).astype(np.uint8)[:, None]


def features(images: np.ndarray) -> torch.Tensor:
    """Means of 4x4 blocks."""
    blocks = images.reshape(len(images), SIDE // 4, 4, SIDE // 4, 4).mean((2, 4))
    return torch.from_numpy(blocks.reshape(len(images), -1)).float()


def brightest_column(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.reshape(len(images), SIDE, SIDE).sum(1).argmax(1) // 4)


def mixed(images: np.ndarray, others: np.ndarray, share: float) -> np.ndarray:
    return ((1 - share) * images + share * others).round().astype(np.uint8)


def blurred_seam(pastes: np.ndarray) -> np.ndarray:
    """A ramp across the seam."""
    smooth, half = pastes.astype(float), SIDE // 2
    left, right = smooth[..., half - 3].copy(), smooth[..., half + 2].copy()
    for step in range(1, 5):
        smooth[..., half - 3 + step] = left + (right - left) * step / 5
    return smooth.round().astype(np.uint8)


def drawings() -> Drawings:
    """Of a model that does what the paper says."""
    reals = pictures(2 * PAIRS, seed=0)
    inputs = reals[:COUNT]
    dial = np.stack(
        [
            np.stack([mixed(inputs, pictures(COUNT, seed=100 + start + k), share) for k in range(2)], axis=1)
            for start, share in ((100, 0.05), (300, 0.2), (600, 0.6), (1000, 1.0))
        ]
    )
    mask = np.zeros((1, 1, SIDE, SIDE), dtype=bool)
    mask[..., SIDE // 2 :] = True
    pastes = np.where(mask, reals[PAIRS:], reals[:PAIRS])
    return Drawings(
        reals=reals, samples=pictures(150, seed=1), of_dcgan=pictures(150, seed=2), from_data=pictures(PAIRS, seed=3),
        dial=dial, pastes=pastes, blends=blurred_seam(pastes), masks=mask,
    )  # fmt: skip


def look(drawn: Drawings, judge=features, classes=brightest_column) -> Seen:
    varied = drawn.dial.reshape(-1, *drawn.dial.shape[3:])
    counts = drawn.dial.shape[:3]
    return Seen(
        reals=judge(drawn.reals), samples=judge(drawn.samples), of_dcgan=judge(drawn.of_dcgan),
        from_data=judge(drawn.from_data), dial=judge(varied).unflatten(0, counts),
        classes_of_inputs=None if classes is None else classes(drawn.reals[: counts[1]]),
        classes_of_dial=None if classes is None else classes(varied).unflatten(0, counts),
    )  # fmt: skip


def verdicts(drawn: Drawings, given: ReproductionConfig | None = None, judge=features) -> dict[str, str]:
    found = measure(given or config(), drawn, look(drawn, judge))
    return {claim.claim: claim.verdict for claim in found.claims}


NEAR, OTHERS, DCGAN, NOT_IT, NOT_EACH_OTHER, DIAL, SIMILAR, SEAM, PARTS = range(9)


def one(drawn: Drawings, which: int, given: ReproductionConfig | None = None, judge=features) -> str:
    return list(verdicts(drawn, given, judge).values())[which]


def test_all_claims_hold_for_a_model_that_does_what_the_paper_says():
    assert set(verdicts(drawings()).values()) == {"holds"}
    assert len(verdicts(drawings())) == 9


def test_a_model_that_returns_its_input_draws_no_new_images():
    drawn = drawings()
    same = dataclasses.replace(drawn, from_data=drawn.reals[:PAIRS])
    assert one(same, NEAR) == "holds"
    assert one(same, OTHERS) == "does not hold"
    dial = drawn.dial.copy()
    dial[-1] = drawn.reals[:COUNT, None]
    assert one(dataclasses.replace(drawn, dial=dial), NOT_IT) == "does not hold"


def test_copies_that_are_alike_are_not_unrelated():
    drawn = drawings()
    dial = drawn.dial.copy()
    dial[-1, :, 1] = dial[-1, :, 0]
    found = dataclasses.replace(drawn, dial=dial)
    assert (one(found, NOT_IT), one(found, NOT_EACH_OTHER)) == ("holds", "does not hold")


def test_noise_is_not_near_the_data_and_worse_than_a_dcgan():
    noise = np.random.default_rng(0).integers(0, 256, (150, 1, SIDE, SIDE), dtype=np.uint8)
    drawn = dataclasses.replace(drawings(), samples=noise, from_data=noise)
    assert (one(drawn, NEAR), one(drawn, DCGAN)) == ("does not hold", "does not hold")
    assert one(dataclasses.replace(drawings(), of_dcgan=noise), DCGAN) == "holds"


def test_a_dial_that_does_not_turn_is_none():
    drawn = drawings()
    constant = np.broadcast_to(drawn.dial[-1], drawn.dial.shape).copy()
    found = dataclasses.replace(drawn, dial=constant)
    assert (one(found, SIMILAR), one(drawn, SIMILAR)) == ("does not hold", "holds")
    assert one(found, DIAL) == "does not hold"
    backwards = dataclasses.replace(drawn, dial=drawn.dial[::-1])
    assert (one(backwards, DIAL), one(drawn, DIAL)) == ("does not hold", "holds")


def test_a_seam_that_stays_and_parts_that_do_not_are_seen():
    drawn = drawings()
    pasted = dataclasses.replace(drawn, blends=drawn.pastes)
    assert (one(pasted, SEAM), one(pasted, PARTS)) == ("does not hold", "holds")
    new = dataclasses.replace(drawn, blends=pictures(PAIRS, seed=9))
    assert one(new, PARTS) == "does not hold"


def test_a_blur_smooths_more_than_the_seam():
    drawn = drawings()
    blurred = np.stack(
        [np.asarray(Image.fromarray(paste[0]).filter(ImageFilter.GaussianBlur(1.5)))[None] for paste in drawn.pastes]
    )
    assert one(dataclasses.replace(drawn, blends=blurred), SEAM) == "does not hold"
    blank = dataclasses.replace(drawn, blends=np.full_like(drawn.pastes, 90))
    assert one(blank, SEAM) == "does not hold"


def test_where_there_was_no_seam_none_was_smoothed():
    drawn = drawings()
    same = np.concatenate([drawn.reals[:PAIRS]] * 2)
    pasted = dataclasses.replace(drawn, reals=same, pastes=same[:PAIRS], blends=same[:PAIRS])
    assert one(pasted, SEAM) == "cannot tell"


def test_copies_that_are_the_image_itself_do_not_differ_in_detail():
    drawn = drawings()
    dial = drawn.dial.copy()
    dial[1] = drawn.reals[:COUNT, None]
    assert one(dataclasses.replace(drawn, dial=dial), SIMILAR) == "does not hold"


def test_features_that_see_nothing_do_not_tell_that_images_are_unrelated():
    def blind(images):
        """Numbers of the pixels' hash."""
        return torch.stack(
            [
                torch.from_numpy(np.random.default_rng(int(image.astype(np.int64).sum())).normal(size=8)).float()
                for image in images
            ]
        )

    drawn = drawings()
    found = [one(drawn, which, judge=blind) for which in (OTHERS, NOT_IT, NOT_EACH_OTHER)]
    assert "holds" not in found


def test_few_images_tell_nothing():
    drawn = drawings()
    given = config()
    narrow = dataclasses.replace(given, claims=dataclasses.replace(given.claims, widest_interval=0.01))
    assert one(drawn, NOT_IT, narrow) == "cannot tell"  # wider than that, an interval reaches 1 by ignorance
    fewer_than_features = dataclasses.replace(drawn, samples=drawn.samples[:9])
    assert one(fewer_than_features, DCGAN) == "cannot tell"


def test_the_dial_knows_classes_and_starts_at_the_image_itself():
    drawn = drawings()
    marks = measure(config(), drawn, look(drawn)).marks
    assert [mark.start for mark in marks] == [0, 100, 300, 600, 1000]
    first, last = marks[0], marks[-1]
    assert (first.to_input.own, first.same_class) == (0, 1)
    assert first.ssim_to_input == pytest.approx(1, abs=1e-5)
    assert last.same_class is not None
    assert last.same_class_at_random is not None
    assert abs(last.same_class - last.same_class_at_random) < 0.3
    assert last.ssim_to_input < marks[1].ssim_to_input < 1
    without = measure(config(), drawn, look(drawn, classes=None)).marks
    assert {mark.same_class for mark in without} == {None}


@pytest.mark.parametrize(
    ("found", "under", "over"),
    [
        (Estimate(1, 0.5, 2), "holds", "cannot tell"),
        (Estimate(2, 1.5, 2.5), "cannot tell", "cannot tell"),
        (Estimate(4, 3, 5), "does not hold", "holds"),
        (Estimate(1, 0.5, 1.5), "holds", "does not hold"),
    ],
)
def test_an_interval_across_the_limit_cannot_tell(found, under, over):
    assert (below(found, 2), above(found, 2)) == (under, over)


def test_the_worst_of_two_decides():
    assert worst("holds", "cannot tell") == "cannot tell"
    assert worst("cannot tell", "does not hold", "holds") == "does not hold"
    assert worst("holds", "holds") == "holds"
