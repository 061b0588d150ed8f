"""How good are the pictures after so many minutes?

    python -m benchmarks.time_to_quality --mnist train-images-idx3-ubyte.gz --minutes 25 --marks 10

The same 6,000 digits for every recipe: the paper's plain loop, `mnist-paper` as our trainer runs it, the quickstart,
and diffusers' `UNet2DModel` in our trainer. The recipes take turns: each trains for one mark's time while the others
wait, and saves a pipeline there; only training counts. Afterwards 1,000 samples of each mark (DDIM, 50 steps, labels
in turn where a recipe has them) meet a judge, a classifier of other digits, and are compared in its features with real
digits that neither it nor a recipe was trained on. A recipe whose rate falls over its length is trained anew for each
of `--lengths` minutes, since its pictures in the middle of a longer run are not what that time could have given.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from tqdm import tqdm

from benchmarks.digits_quality import Judge, feature_fid, train_judge, verdict
from benchmarks.harness import Side, interleave, parser, points, write_record
from benchmarks.ours import FOREVER, PacedRun
from benchmarks.peers.loops import PlainTraining, synchronize
from benchmarks.worker import Measured
from fastddpm import FastDDPMPipeline, FusedDDPMScheduler
from fastddpm.config import DataConfig, load_config
from fastddpm.data import load_splits, to_unit_range
from fastddpm.training.draw import pipeline_of

NUM_IMAGES, NUM_JUDGE, NUM_REALS = 6_000, 20_000, 5_000
STOCK = {
    "model.architecture": "UNet2DModel", "model.block_out_channels": "[32, 64, 128]", "model.layers_per_block": 1,
    "model.attention_levels": "[1]", "model.attention_head_dim": 8, "train.batch_size": 64,
}  # fmt: skip
PROBE_STEPS = 12


def main() -> None:
    given = _arguments()
    judge, reals = judge_and_reals(given.mnist)
    with tempfile.TemporaryDirectory() as folder:
        work = given.work or Path(folder)
        runs = interleave(sides(given, work), rounds=given.marks, warm_up=0, title="marks")
        rows = []
        for name, found in tqdm(runs.items(), "judging"):
            seconds = found.facts["seconds a mark"]
            seen = itertools.accumulate(round(rate * seconds) for rate in found.rates)
            for number, images_seen in enumerate(seen, 1):
                quality = judged(work / found.facts["folder"] / f"mark-{number}", judge, reals, given.num_samples)
                rows.append(
                    {"recipe": name, "minutes": round(number * seconds / 60, 2), "images seen": images_seen, **quality}
                )
    floor = feature_fid(judge, reals[: given.num_samples], reals[given.num_samples :])
    plot(rows, floor, given.out.with_name(f"{given.out.name}-curves.png"))
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(given).items()}
    write_record(given.out, "Time to quality", rows, settings=settings, floor=floor)


def _arguments() -> argparse.Namespace:
    asked = parser(__doc__, "time-to-quality")
    asked.add_argument("--mnist", type=Path, required=True, help="train-images-idx3-ubyte[.gz], its labels beside it")
    asked.add_argument("--minutes", type=float, default=25.0)
    asked.add_argument("--marks", type=int, default=10)
    asked.add_argument(
        "--lengths", type=float, nargs="+", default=[2.0, 5.0, 25.0], help="of the quickstart, in minutes"
    )
    asked.add_argument("--num_samples", type=int, default=1000)
    asked.add_argument("--work", type=Path, help="keep the pipelines of the marks here")
    return asked.parse_args()


def data(mnist: str) -> DataConfig:
    """6,000 digits to train on; the others, for the judge, are held out."""
    return DataConfig(source=mnist, num_images=NUM_IMAGES, num_held_out=NUM_JUDGE + NUM_REALS)


def judge_and_reals(mnist: Path) -> tuple[Judge, Tensor]:
    """A judge, and real digits that nothing was trained on: (5000, 1, 28, 28) in [-1, 1]."""
    held_out = load_splits(data(str(mnist)), seed=0).held_out
    places = torch.arange(len(held_out))
    images = to_unit_range(torch.from_numpy(held_out.source.images[held_out.indices_of(places).numpy()]))
    labels = held_out.labels_of(places)
    assert labels is not None, "the labels file lies beside the images file"
    return train_judge(images[:NUM_JUDGE], labels[:NUM_JUDGE]), images[NUM_JUDGE:]


def sides(given: argparse.Namespace, work: Path) -> dict[str, Side]:
    """Every recipe; a quickstart of each length."""
    seconds = given.minutes * 60 / given.marks

    def ours(folder: str, config: str, minutes: float, settings: Mapping[str, Any]) -> Side:
        own = {"seconds": minutes * 60 / given.marks, "minutes": minutes}
        places = {"folder": str(work / folder), "mnist": str(given.mnist)}
        return Side("benchmarks.time_to_quality:trained", {"config": config, "settings": settings, **own, **places})

    plain = {"folder": str(work / "plain"), "mnist": str(given.mnist), "seconds": seconds}
    found = {
        "plain loop": Side("benchmarks.time_to_quality:trained_plainly", plain),
        "mnist-paper": ours("paper", "mnist-paper", given.minutes, {}),
        "UNet2DModel": ours("stock", "", given.minutes, STOCK),
    }
    for minutes in given.lengths:
        found[f"quickstart, {minutes:g} minutes"] = ours(f"quickstart-{minutes:g}", "quickstart", minutes, {})
    return found


@contextmanager
def trained(
    *, config: str, settings: dict[str, Any], seconds: float, minutes: float, folder: str, mnist: str
) -> Iterator[Measured]:
    """Our trainer with a config, `seconds` a round; its length in images is what it does in `minutes`."""
    place = Path(folder)
    wanted = data(mnist)
    common = {
        "data.source": mnist, "data.num_images": wanted.num_images, "data.num_held_out": wanted.num_held_out,
        "train.evaluate_every": 0, "train.checkpoint_every": 0, **settings,
    }  # fmt: skip
    probe = PacedRun(_config(config, common, place / "probe", FOREVER))
    rate = _rate(probe)
    probe.stop()
    num_images = round(rate * minutes * 60)
    paced = PacedRun(_config(config, common, place / "run", num_images))
    run, number = paced.run, 0

    def train() -> int:
        nonlocal number
        number += 1
        begin, before = time.perf_counter(), run.images_seen
        while time.perf_counter() - begin < seconds and run.state.step < run.num_steps - 1:
            paced.steps(1)
        pipeline_of(run).save_pretrained(place / f"mark-{number}")
        return run.images_seen - before

    try:
        yield Measured(train, {"folder": place.name, "seconds a mark": seconds, "length in images": num_images})
    finally:
        paced.stop()


def _config(config: str, common: Mapping[str, Any], folder: Path, num_images: int) -> Any:
    return load_config(config or None, {**common, "output_dir": str(folder), "train.num_images_seen": num_images})


def _rate(paced: PacedRun) -> float:
    paced.steps(2)
    rates = []
    for _ in range(PROBE_STEPS):
        begin = time.perf_counter()
        paced.steps(1)
        rates.append(paced.run.config.train.batch_size / (time.perf_counter() - begin))
    return points(rates)[1]


@contextmanager
def trained_plainly(*, seconds: float, folder: str, mnist: str) -> Iterator[Measured]:
    """The plain loop, `seconds` a round; no averaged weights, as the paper mentions none."""
    train = load_splits(data(mnist), seed=0).train
    images = to_unit_range(torch.from_numpy(train.source.images[train.indices_of(torch.arange(len(train))).numpy()]))
    training, place, number = PlainTraining(images, 128, [64, 128, 256]), Path(folder), 0

    def run() -> int:
        nonlocal number
        number += 1
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            count += training.step()
        synchronize()
        FastDDPMPipeline(training.unet, FusedDDPMScheduler()).save_pretrained(place / f"mark-{number}")
        return count

    yield Measured(run, {"folder": place.name, "seconds a mark": seconds})


def judged(folder: Path, judge: Judge, reals: Tensor, num_samples: int) -> dict[str, Any]:
    """What the judge says of the samples of a saved pipeline."""
    pipeline = FastDDPMPipeline.from_pretrained(folder)
    pipeline.unet.eval().to(memory_format=torch.channels_last)
    drawer = FastDDPMPipeline(pipeline.unet, DDIMScheduler.from_config(pipeline.scheduler.config))
    drawer.set_progress_bar_config(disable=True)
    with torch.autocast("cpu", torch.bfloat16):
        images = drawer(
            seeds=range(num_samples), num_inference_steps=50, micro_batch_size=min(250, num_samples), output_type="pt"
        ).images  # fmt: skip
    exact = (images * 255).round() / 127.5 - 1
    return {"FID": feature_fid(judge, exact, reals), "confident": verdict(judge, exact)["confident"]}


def plot(rows: list[dict[str, Any]], floor: float, path: Path) -> None:
    """FID over training minutes, a curve a recipe."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, group in itertools.groupby(rows, lambda line: line["recipe"]):
        curve = list(group)
        axis.plot([line["minutes"] for line in curve], [line["FID"] for line in curve], "o-", label=name)
    axis.axhline(floor, color="#888888", linestyle=":", label="reals against reals")
    axis.set(xlabel="minutes of training", ylabel="FID in the judge's features", yscale="log")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
