"""Every picture that the figures and the numbers need, each a file that the commands could have drawn, and what the
networks that judge see in them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from fastddpm.studies.paper.settings import ReproductionConfig
from fastddpm.verbs.evaluate.feature_space import FeatureSpace
from fastddpm.verbs.sample.blends import cutmix
from fastddpm.verbs.sample.formats import images_in
from fastddpm.verbs.sample.request import BlendRequest, SampleRequest, VariationRequest
from fastddpm.verbs.sample.samples import sample
from fastddpm.verbs.sample.variations import vary

NUM_PICTURED, NUM_COPIES = 4, 6
"""images of figures 7 and 8, and copies of each"""
SIMILAR, UNRELATED = 300, 1000
"""start timesteps of figures 8 and 9, and of figure 7"""
MICRO_BATCH = 100
SEEDS = {
    name: (1 + place) * 10**7
    for place, name in enumerate(("from-data", "blends", f"copies-{UNRELATED}", f"copies-{SIMILAR}", "dial"))
}
"""distance of each file's seeds from those of the samples: no two files share any noise"""
BETWEEN_STARTS = 10**5
"""seeds between variations of one start timestep and the next"""


@dataclass(frozen=True)
class Drawings:
    """All images that figures and numbers are of: (..., C, H, W), uint8."""

    reals: np.ndarray
    """(M,): held out"""
    samples: np.ndarray
    """(N,): new images of the DDPM"""
    of_dcgan: np.ndarray
    """(N,): new images of the DCGAN"""
    from_data: np.ndarray
    """(N,): each of the first N reals noised to the end of the chain and denoised"""
    dial: np.ndarray
    """(T, N, K): of each start timestep, K variations of each of the first N reals, noised once for all K"""
    pastes: np.ndarray
    """(N,): the right half of real N + i pasted into real i"""
    blends: np.ndarray
    """(N,): the pastes, noised and denoised"""
    masks: np.ndarray
    """(1, 1, H, W), bool: true in the pasted part"""


def draw_samples(config: ReproductionConfig, model: Path, out: Path) -> np.ndarray:
    """New images of a model: (num_samples, C, H, W), uint8; what is drawn already is drawn with these settings."""
    if out.exists():
        return images_in(out, [])
    has_steps = not (model / "generator").exists()
    steps = config.measure.num_inference_steps if has_steps else None
    sample(
        SampleRequest(
            model=str(model), out=out, num_images=config.measure.num_samples, num_inference_steps=steps,
            seed=config.seed, micro_batch_size=MICRO_BATCH, num_threads=config.num_threads,
        )
    )  # fmt: skip
    return images_in(out, [])


def draw(config: ReproductionConfig, model: Path, reals: Path, folder: Path, of_dcgan: np.ndarray) -> Drawings:
    """Draw all that a DDPM has to draw; every process calls it.

    Args:
        model: its run.
        reals: an .npz of the held-out images.
        folder: of the files.
        of_dcgan: the other model's.
    """
    measure, inputs = config.measure, images_in(reals, [])
    count, shape = measure.num_blends, inputs.shape[1:]
    samples = draw_samples(config, model, folder / "samples-ddpm.npz")

    def varied(name: str, count: int, start: int, each: int, seed: int, figure: str | None = None) -> np.ndarray:
        out = folder / f"{name}.npz"
        if out.exists() and (figure is None or (folder / figure).exists()):
            return images_in(out, [])
        vary(
            VariationRequest(
                model=str(model), images=(f"{reals}#0:{count}",), out=out, start_timesteps=(start,), num_images=each,
                num_inference_steps=min(start, measure.num_inference_steps), shared_noise=True, seed=config.seed + seed,
                micro_batch_size=MICRO_BATCH, num_threads=config.num_threads,
                figure=None if figure is None else folder / figure,
            )
        )  # fmt: skip
        return images_in(out, [])

    for number, start in ((7, UNRELATED), (8, SIMILAR)):
        name = f"copies-{start}"
        varied(name, NUM_PICTURED, start, NUM_COPIES, SEEDS[name], f"figure-{number}.png")
    from_data = varied("from-data", measure.num_from_data, UNRELATED, 1, SEEDS["from-data"])
    starts, each = measure.start_timesteps, (measure.num_inputs, measure.num_variations)
    of_starts = [
        varied(f"dial-{start:04d}", each[0], start, each[1], SEEDS["dial"] + start * BETWEEN_STARTS) for start in starts
    ]
    mask = np.broadcast_to(np.arange(shape[2]) >= shape[2] // 2, (1, 1, *shape[1:])).copy()
    return Drawings(
        reals=inputs,
        samples=samples,
        of_dcgan=of_dcgan,
        from_data=from_data,
        dial=np.stack(of_starts).reshape(len(starts), *each, *shape),
        pastes=np.where(mask, inputs[count : 2 * count], inputs[:count]),
        blends=_blends(config, model, reals, folder / "blends.npz", shape),
        masks=mask,
    )


def _blends(config: ReproductionConfig, model: Path, reals: Path, out: Path, shape: tuple[int, int, int]) -> np.ndarray:
    count, (_, height, width) = config.measure.num_blends, shape
    if not out.exists():
        cutmix(
            BlendRequest(
                model=str(model), images=(f"{reals}#0:{count}",), partners=(f"{reals}#{count}:{2 * count}",),
                out=out, start_timesteps=(SIMILAR,), num_images=1, box=(0, width // 2, height, width - width // 2),
                num_inference_steps=config.measure.num_inference_steps, seed=config.seed + SEEDS["blends"],
                micro_batch_size=MICRO_BATCH, num_threads=config.num_threads,
            )
        )  # fmt: skip
    return images_in(out, [])


@dataclass(frozen=True)
class Seen:
    """Features, (..., D) float32, and classes, (...) int64, of `Drawings`."""

    reals: Tensor
    samples: Tensor
    of_dcgan: Tensor
    from_data: Tensor
    dial: Tensor
    """(T, N, K, D)"""
    classes_of_inputs: Tensor | None
    """(N,), of the images that are varied; None: there are no labels to learn"""
    classes_of_dial: Tensor | None
    """(T, N, K)"""


def see(drawings: Drawings, of_reals: Tensor, space: FeatureSpace, classifier: FeatureSpace) -> Seen:
    """Look at everything; every process calls it.

    Args:
        of_reals: features of the reals.
        space: where distances are measured.
        classifier: knows classes, if it is one; may be the same.
    """
    drawn = drawings.dial.reshape(-1, *drawings.dial.shape[3:])
    counts = drawings.dial.shape[:3]

    def classes(images: np.ndarray) -> Tensor | None:
        return None if classifier.classes is None else classifier.classes(images)

    of_dial = classes(drawn)
    return Seen(
        reals=of_reals,
        samples=space.of(drawings.samples, "samples"),
        of_dcgan=space.of(drawings.of_dcgan, "samples of the DCGAN"),
        from_data=space.of(drawings.from_data, "images from data"),
        dial=space.of(drawn, "variations").unflatten(0, counts),
        classes_of_inputs=classes(drawings.reals[: counts[1]]),
        classes_of_dial=None if of_dial is None else of_dial.unflatten(0, counts),
    )
