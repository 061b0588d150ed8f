"""Does drawing in bfloat16 cost quality?  python -m benchmarks.precision_quality RUN --mnist train-images-idx3-ubyte.gz

1,000 images of the same seeds (DDIM, 50 steps) with the run's network in float32 and in bfloat16. FID in the features
of the judge of `benchmarks.time_to_quality`, with the interval of float32's by bootstrap (`evaluation.fidelity`).
Also, how far the pixels of the two are apart. RUN must be trained with the split of that script, so that the reals are
unseen.
"""

import argparse
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from benchmarks.harness import Bar, parser, write_record
from benchmarks.time_to_quality import judge_and_reals
from fastddpm import FastDDPMPipeline
from fastddpm.measures.fidelity import fid, interval


def main() -> None:
    asked = parser(__doc__, "precision-quality")
    asked.add_argument("run", type=Path)
    asked.add_argument("--mnist", type=Path, required=True, help="train-images-idx3-ubyte[.gz], its labels beside it")
    asked.add_argument(
        "--judge", type=Path, help="the judge's file of benchmarks.time_to_quality; left out: beside --out"
    )
    asked.add_argument("--num_samples", type=int, default=1000)
    asked.add_argument("--resamples", type=int, default=100)
    given = asked.parse_args()
    judge, reals = judge_and_reals(given, given.judge or given.out.with_name("judge.safetensors"))
    full, low = (drawn(given, dtype) for dtype in (torch.float32, torch.bfloat16))
    with torch.no_grad():
        of_full, of_low, of_reals = (judge.features(images) for images in (full, low, reals))
    full_fid, low_fid = round(fid(of_full, of_reals), 2), round(fid(of_low, of_reals), 2)
    least, most = interval(fid, of_full, of_reals, full_fid, resamples=given.resamples)
    rows = [
        {"drawn in": "float32", "FID": full_fid, "bootstrap 2.5 %": least, "97.5 %": most},
        {"drawn in": "bfloat16", "FID": low_fid},
    ]
    apart = (full - low).abs().mul(127.5).round()
    levels = {"mean difference in grey levels": float(apart.mean()), "largest": float(apart.max())}
    bars = [
        Bar("bfloat16's FID", low_fid, round(most, 2), at_most=True),
        Bar("bfloat16's FID, from below", low_fid, round(least, 2)),
    ]
    write_record(given.out, "Drawing in bfloat16", rows, bars, num_samples=given.num_samples, **levels)


@torch.no_grad()
def drawn(given: argparse.Namespace, dtype: torch.dtype) -> Tensor:
    """Samples as stored in a file: (N, 1, 28, 28), float32, in [-1, 1]."""
    pipeline = FastDDPMPipeline.from_pretrained(given.run)
    pipeline.unet.to(dtype=dtype, memory_format=torch.channels_last)
    drawer = FastDDPMPipeline(pipeline.unet, DDIMScheduler.from_config(pipeline.scheduler.config))
    images = drawer(
        seeds=range(given.num_samples), num_inference_steps=50, micro_batch_size=min(250, given.num_samples),
        output_type="pt",
    ).images  # fmt: skip
    return (images.float() * 255).round() / 127.5 - 1


if __name__ == "__main__":
    main()
