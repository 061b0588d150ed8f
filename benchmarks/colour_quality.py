"""Are the pictures of a saved pipeline good? python -m benchmarks.colour_quality PIPELINE... --splits SPLITS

Each PIPELINE is a folder with a U-Net and a scheduler, ours or diffusers'. Pictures are drawn by the same stock
sampler with the same starting noise for each (DPM-Solver++ on the folder's own betas, prediction type and
`clip_sample`; the network in bfloat16 where the CPU is quicker in it, else in float32), and compared with
SPLITS/reference by the judge of `colour_judge.py`. Distances in pixel space to the nearest training picture are set
against those of the reference: a smaller one than reals have hints at copies.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DModel
from torch import Tensor

from benchmarks.colour_judge import distances, judge_of
from benchmarks.colour_set import read_images
from fastddpm import PaperUNet2DModel
from fastddpm.measures.unlabelled_judge import UnlabelledFeatures
from fastddpm.precision import resolve_precision

NETWORKS = {"UNet2DModel": UNet2DModel, "PaperUNet2DModel": PaperUNet2DModel}
MICRO_BATCH_SIZE = 50
IN_BFLOAT16 = resolve_precision("auto", cpu=True) == "bf16"
"""what is quicker on this CPU; float32 otherwise"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipelines", type=Path, nargs="+")
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--num_images", type=int, default=500)
    parser.add_argument("--num_inference_steps", type=int, default=12)
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a folder for the samples, NAME.npy")
    given = parser.parse_args()
    torch.set_num_threads(given.num_threads)
    for folder in given.pipelines:
        begin = time.perf_counter()
        images = draw(folder, given.num_images, given.num_inference_steps)
        seconds = round(time.perf_counter() - begin, 1)
        if given.out:
            given.out.mkdir(parents=True, exist_ok=True)
            np.save(given.out / f"{folder.name}.npy", images.numpy())
        record = {"pipeline": folder.name, **measure(images, given.splits), "seconds": seconds}
        print(json.dumps(record), flush=True)


@torch.no_grad()
def draw(folder: Path, num_images: int, num_inference_steps: int) -> Tensor:
    """Samples of the U-Net saved in a folder: (N, 3, S, S), uint8; image i starts from the noise of seed i."""
    unet = _network(folder)
    side = unet.config.sample_size
    drawn = []
    for begin in range(0, num_images, MICRO_BATCH_SIZE):
        seeds = range(begin, min(begin + MICRO_BATCH_SIZE, num_images))
        noises = [torch.randn(3, side, side, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        drawn.append(_denoise(unet, folder, torch.stack(noises), num_inference_steps))
    return ((torch.cat(drawn).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _network(folder: Path) -> UNet2DModel | PaperUNet2DModel:
    name = json.loads((folder / "unet" / "config.json").read_text())["_class_name"]
    return NETWORKS[name].from_pretrained(folder, subfolder="unet").eval().to(memory_format=torch.channels_last)


def _denoise(unet: UNet2DModel | PaperUNet2DModel, folder: Path, x_t: Tensor, num_inference_steps: int) -> Tensor:
    written = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    kept = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    given = {name: written[name] for name in kept}
    # with sample_max_value 1, "dynamic" thresholding is DDPM's clip_sample: the predicted x_0 is clipped to [-1, 1]
    clipping = {"thresholding": written["clip_sample"], "sample_max_value": 1.0}
    scheduler = DPMSolverMultistepScheduler(**given, **clipping, timestep_spacing="trailing")
    scheduler.set_timesteps(num_inference_steps)
    for t in scheduler.timesteps:
        with torch.autocast("cpu", torch.bfloat16, enabled=IN_BFLOAT16):
            prediction = unet(x_t.contiguous(memory_format=torch.channels_last), t).sample.float()
        x_t = scheduler.step(prediction, t, x_t).prev_sample
    return x_t


def measure(images: Tensor, splits: Path) -> dict[str, object]:
    """FID and KID against the reference, and distances to the nearest training picture; images uint8."""
    judge, reference, training = parts(splits)
    return {"num_images": len(images), **distances(judge, images, reference), **memorization(images, training)}


def floor(splits: Path, num_images: int) -> dict[str, object]:
    """What reals get: training pictures by the judge, reference pictures by the distance to training ones."""
    judge, reference, training = parts(splits)
    return {**distances(judge, training[:num_images], reference), **memorization(reference, training)}


def parts(splits: Path) -> tuple[UnlabelledFeatures, Tensor, Tensor]:
    """The judge, the reference and the training pictures, (N, 3, S, S) uint8."""
    reference, training = (torch.from_numpy(read_images(splits / name)) for name in ("reference", "train"))
    return judge_of(splits), reference, training


def memorization(images: Tensor, training: Tensor) -> dict[str, object]:
    """5 %, 50 % and 95 % points of the root mean square distances to the nearest training picture, in [0, 255]."""
    a, b = (x.flatten(1).float() for x in (images, training))
    nearest = torch.cdist(a, b).min(1).values / a.shape[1] ** 0.5
    quantiles = torch.quantile(nearest, torch.tensor([0.05, 0.5, 0.95]))
    return {"nearest_training": [round(x, 2) for x in quantiles.tolist()]}


if __name__ == "__main__":
    main()
