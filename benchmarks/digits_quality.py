"""Are the digits of a run good?  python -m benchmarks.digits_quality RUN --mnist train-images-idx3-ubyte.gz

A classifier is trained on MNIST digits that the run never saw (those of the file that are not among the packaged
5,000). It then looks at samples of the run, drawn by our scheduler and by DDIM with 50 steps, with balanced labels and
with none: what share gets a confidence of 0.9 or more, and which share falls to each class. Distances in pixel space
to the nearest training image are set against those of real digits. Prints and writes one JSON record.
"""

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor, nn
from tqdm import tqdm

from fastddpm import FastDDPMPipeline
from fastddpm.config import DataConfig, load_config
from fastddpm.data import ingest, load_splits, to_unit_range
from fastddpm.measures.fidelity import fid

NUM_TRAIN, NUM_TEST = 20_000, 5_000


class Judge(nn.Module):
    """A small convolutional classifier of 28x28 digits."""

    def __init__(self) -> None:
        super().__init__()

        def stage(c_in: int, c_out: int) -> list[nn.Module]:
            convolutions = [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU(), nn.Conv2d(c_out, c_out, 3, padding=1)]
            return [*convolutions, nn.ReLU(), nn.MaxPool2d(2)]

        self.features = nn.Sequential(*stage(1, 32), *stage(32, 64), nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(128, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def unseen_digits(mnist: Path, packaged: np.ndarray) -> tuple[Tensor, Tensor]:
    """Digits and labels of the file whose pixels are not among the packaged ones: (N, 1, 28, 28) in [-1, 1], (N,)."""
    everything = ingest(DataConfig(source=str(mnist)))
    seen = {image.tobytes() for image in packaged}
    places = [i for i, image in enumerate(everything.images) if image.tobytes() not in seen]
    assert everything.labels is not None, "the labels file lies beside the images file"
    images = to_unit_range(torch.from_numpy(everything.images[places]))
    return images, torch.from_numpy(everything.labels[places])


def train_judge(images: Tensor, labels: Tensor, epochs: int = 5, batch_size: int = 128) -> Judge:
    """AdamW with a one-cycle rate, from a fixed seed."""
    torch.manual_seed(0)
    judge = Judge()
    steps = len(images) // batch_size
    optimizer = torch.optim.AdamW(judge.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * steps)
    for _ in tqdm(range(epochs), "judge"):
        order = torch.randperm(len(images))
        for places in order[: steps * batch_size].split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(judge(images[places]), labels[places]).backward()
            optimizer.step()
            rate.step()
    return judge.eval()


@torch.no_grad()
def verdict(judge: Judge, images: Tensor, labels: Tensor | None = None) -> dict[str, object]:
    """Share of confident images, share of each class, share with the label asked for."""
    confidence, found = judge(images).softmax(1).max(1)
    result: dict[str, object] = {
        "confident": round((confidence >= 0.9).double().mean().item(), 4),
        "class_shares": [round(n / len(found), 4) for n in torch.bincount(found, minlength=10).tolist()],
    }
    if labels is not None:
        result["label_right"] = round((found == labels).double().mean().item(), 4)
    return result


def feature_fid(judge: Judge, images: Tensor, reals: Tensor) -> float:
    """Frechet distance in the judge's 128 features; comparable only under the same judge and counts."""
    with torch.no_grad():
        return round(fid(judge.features(images), judge.features(reals)), 2)


def nearest_distances(images: Tensor, training: Tensor) -> list[float]:
    """5 %, 50 % and 95 % points of the distances to the nearest training image, in grey levels of [0, 1]."""
    distances = torch.cdist(images.flatten(1) / 2, training.flatten(1) / 2).min(1).values
    return [round(x, 3) for x in torch.quantile(distances, torch.tensor([0.05, 0.5, 0.95])).tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--mnist", type=Path, required=True, help="train-images-idx3-ubyte[.gz], its labels beside it")
    parser.add_argument("--num_images", type=int, default=1000)
    parser.add_argument("--num_inference_steps", type=int, nargs="+", default=[100], help="of our own scheduler")
    parser.add_argument("--guidance_scales", type=float, nargs="+", default=[], help="also by class with these")
    parser.add_argument("--out", type=Path, help="where the record goes; default: printed only")
    given = parser.parse_args()
    record = measure(given.run, given.mnist, given.num_images, given.num_inference_steps, given.guidance_scales)
    text = json.dumps(record, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


def measure(run: Path, mnist: Path, num_images: int, all_steps: list[int], scales: list[float]) -> dict[str, object]:
    """The record of a run."""
    config = load_config(run / "config.yaml")
    splits = load_splits(config.data, seed=config.seed)
    images, labels = unseen_digits(mnist, splits.train.source.images)
    judge = train_judge(images[:NUM_TRAIN], labels[:NUM_TRAIN])
    reals, real_labels = images[-NUM_TEST:], labels[-NUM_TEST:]
    training = to_unit_range(
        torch.from_numpy(splits.train.source.images[splits.train.indices_of(torch.arange(len(splits.train))).numpy()])
    )
    pipeline = FastDDPMPipeline.from_pretrained(run)
    pipeline.unet.to(memory_format=torch.channels_last)

    def describe(drawn: Tensor, wanted: Tensor | None) -> dict[str, object]:
        nearest = nearest_distances(drawn, training)
        return {**verdict(judge, drawn, wanted), "fid": feature_fid(judge, drawn, reals), "nearest_training": nearest}

    other_reals = images[-NUM_TEST - num_images : -NUM_TEST]
    record: dict[str, object] = {
        "commit": _commit(),
        "run": str(run.name),
        "images_seen": config.train.num_images_seen,
        "num_samples": num_images,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "judge_accuracy": verdict(judge, reals, real_labels)["label_right"],
        "unseen reals": describe(other_reals, None),
    }
    for name, draw in samplers(pipeline, num_images, all_steps, scales).items():
        begin = time.perf_counter()
        drawn, wanted = draw()
        seconds = round(time.perf_counter() - begin, 1)
        record[name] = {**describe(drawn, wanted), "seconds": seconds}
    return record


def _commit() -> str:
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "n/a"


Drawn = tuple[Tensor, Tensor | None]


def samplers(
    pipeline: FastDDPMPipeline, num_images: int, all_steps: list[int], scales: list[float]
) -> dict[str, Callable[[], Drawn]]:
    """name -> draws images in [-1, 1], and the labels asked for."""
    ours, ddim = pipeline.scheduler, DDIMScheduler.from_config(pipeline.scheduler.config)
    classes = pipeline.num_classes
    balanced = None if classes is None else [i % classes for i in range(num_images)]
    null = None if classes is None else [classes] * num_images

    def sampler(
        scheduler: object, steps: int, labels: list[int] | None, asked: bool, scale: float = 1.0
    ) -> Callable[[], Drawn]:
        def draw() -> Drawn:
            made = FastDDPMPipeline(pipeline.unet, scheduler)
            with torch.autocast("cpu", torch.bfloat16):
                images = made(
                    seeds=range(num_images), class_labels=labels, guidance_scale=scale, num_inference_steps=steps,
                    micro_batch_size=250, output_type="pt",
                ).images  # fmt: skip
            exact = (images * 255).round() / 127.5 - 1
            return exact, torch.tensor(labels) if asked else None

        return draw

    found = {}
    for kind, labels in (("each class in turn", balanced), ("no labels", null)):
        if kind == "no labels" or labels is not None:
            asked = labels is not None and labels is not null
            for steps in all_steps:
                found[f"ours, {steps} steps, {kind}"] = sampler(ours, steps, labels, asked)
            found[f"DDIM, 50 steps, {kind}"] = sampler(ddim, 50, labels, asked)
    for scale in scales:
        for steps in all_steps:
            name = f"ours, {steps} steps, each class in turn, guidance {scale}"
            found[name] = sampler(ours, steps, balanced, True, scale)
    return found


if __name__ == "__main__":
    main()
