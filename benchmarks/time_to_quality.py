"""How good are the pictures after so many minutes?

    python -m benchmarks.time_to_quality --mnist train-images-idx3-ubyte.gz --work FOLDER --minutes 25 --marks 10

The same 6,000 digits for every recipe: the paper's plain loop, `mnist-paper` as our trainer runs it, the quickstart,
and diffusers' `UNet2DModel` in our trainer. The recipes take turns: each trains for one mark's time while the others
wait, and saves a pipeline there; only training counts. Afterwards 500 samples of each mark (DPM-Solver++, 12 steps,
labels in turn where a recipe has them) meet a judge, a classifier of other digits, and are compared in its features
with real digits that neither it nor a recipe was trained on. A recipe whose rate falls over its length is trained anew
for each of `--lengths` minutes, since its pictures in the middle of a longer run are not what that time could have
given. Minutes are those of a recipe's fastest mark. What is in FOLDER already is kept: `--only judge` goes on where
judging stopped.
"""

import argparse
import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor
from tqdm import tqdm

from benchmarks.digits_quality import Judge, feature_fid, train_judge, verdict
from benchmarks.harness import Side, interleave, parser, write_record
from benchmarks.ours import PacedRun
from benchmarks.peers.loops import PlainTraining, synchronize
from benchmarks.worker import Measured
from fastddpm import FastDDPMPipeline, FusedDDPMScheduler
from fastddpm.config import DataConfig, load_config
from fastddpm.data import load_splits, to_unit_range
from fastddpm.process import keep_freed_memory
from fastddpm.schedulers.named import scheduler_named
from fastddpm.training.draw import pipeline_of

TRAINED, JUDGED, REALS = 6_000, 20_000, 5_000
TINY_TRAINED, TINY_JUDGED, TINY_REALS = 256, 512, 256
STOCK = {
    "model.architecture": "UNet2DModel", "model.block_out_channels": "[32, 64, 128]", "model.layers_per_block": 1,
    "model.attention_levels": "[1]", "model.attention_head_dim": 8, "train.batch_size": 64,
}  # fmt: skip
WIDTHS, TINY_WIDTHS = [64, 128, 256], [4, 8]
SMALL = {"model.block_out_channels": "[16, 32]"}
SMALL_STOCK = {"model.block_out_channels": "[8, 16, 16]", "model.norm_num_groups": 4}
HERE = "benchmarks.time_to_quality"
MARK = "mark.json"


def main() -> None:
    given = _arguments()
    if given.only != "judge":
        interleave(sides(given, recipes(given)), rounds=given.marks, warm_up=0, title="marks")
    if given.only == "train":
        return
    keep_freed_memory()
    judge, reals = judge_and_reals(given, given.work / "judge.safetensors")
    rows = [
        timed | quality_of(mark, judge, reals, given.num_samples)
        for mark, timed in tqdm(marks_in(given.work).items(), "judging")
    ]
    floor = feature_fid(judge, reals[: given.num_samples], reals[given.num_samples :])
    plot(rows, floor, given.out.with_name(f"{given.out.name}-curves.png"))
    write_record(given.out, "Time to quality", rows, num_samples=given.num_samples, floor=floor)


def marks_in(work: Path) -> dict[Path, dict[str, Any]]:
    """The folders of all marks, in the order of recipes and minutes, with the row of each.

    Minutes are those of the images seen at the rate of the recipe's fastest mark, so that what else the machine did
    meanwhile is not taken for slowness; what the clock said stands beside them.
    """
    rows = {}
    for recipe in sorted({path.parents[1] for path in work.glob(f"*/mark-*/{MARK}")}):
        marks = sorted(recipe.glob("mark-*"), key=lambda mark: int(mark.name.removeprefix("mark-")))
        seen = [json.loads((mark / MARK).read_text()) for mark in marks if (mark / MARK).exists()]
        before = [{"clock minutes": 0.0, "images seen": 0}, *seen]
        rate = max(
            (b["images seen"] - a["images seen"]) / (b["clock minutes"] - a["clock minutes"])
            for a, b in itertools.pairwise(before)
        )
        for mark, row in zip(marks, seen, strict=False):
            rows[mark] = {"recipe": row["recipe"], "minutes": round(row["images seen"] / rate, 4), **row}
    return rows


def _arguments() -> argparse.Namespace:
    asked = parser(__doc__, "time-to-quality")
    asked.add_argument("--mnist", type=Path, required=True, help="train-images-idx3-ubyte[.gz], its labels beside it")
    asked.add_argument("--minutes", type=float, default=25.0)
    asked.add_argument("--marks", type=int, default=10)
    asked.add_argument(
        "--lengths", type=float, nargs="+", default=[2.0, 5.0, 25.0], help="of the quickstart, in minutes"
    )
    asked.add_argument("--num_samples", type=int, default=500)
    asked.add_argument("--work", type=Path, required=True, help="where the pipelines of the marks are, or come to be")
    asked.add_argument("--only", choices=("train", "judge"), help="one half of it")
    return asked.parse_args()


def data(mnist: str, tiny: bool) -> DataConfig:
    """6,000 digits to train on; the others, for the judge, are held out."""
    if tiny:
        return DataConfig(source=mnist, num_images=TINY_TRAINED, num_held_out=TINY_JUDGED + TINY_REALS)
    return DataConfig(source=mnist, num_images=TRAINED, num_held_out=JUDGED + REALS)


def judge_and_reals(given: argparse.Namespace, kept: Path) -> tuple[Judge, Tensor]:
    """A judge, and real digits that nothing was trained on: (5000, 1, 28, 28) in [-1, 1].

    Args:
        kept: the judge's file; made if it is not there.
    """
    held_out = load_splits(data(str(given.mnist), given.tiny), seed=0).held_out
    places = torch.arange(len(held_out))
    images = to_unit_range(torch.from_numpy(held_out.source.images[held_out.indices_of(places).numpy()]))
    labels = held_out.labels_of(places)
    assert labels is not None, "the labels file lies beside the images file"
    count = TINY_JUDGED if given.tiny else JUDGED
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_model(train_judge(images[:count], labels[:count]), str(kept))
    judge = Judge().eval()
    load_model(judge, kept)
    return judge, images[count:]


def recipes(given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What our trainer runs: the config, settings on top of it, and the minutes that it is given."""
    small = SMALL if given.tiny else {}
    found = {
        "mnist-paper": {"config": "mnist-paper", "settings": small, "minutes": given.minutes},
        "UNet2DModel": {
            "config": None, "settings": STOCK | (SMALL_STOCK if given.tiny else {}), "minutes": given.minutes
        },
    }  # fmt: skip
    for minutes in given.lengths:
        found[f"quickstart, {minutes:g} minutes"] = {"config": "quickstart", "settings": small, "minutes": minutes}
    return found


def sides(given: argparse.Namespace, wanted: Mapping[str, dict[str, Any]]) -> dict[str, Side]:
    """The plain loop, and every recipe with the length that its rate gives it."""
    images = data(str(given.mnist), given.tiny)
    common = {
        "data.source": images.source, "data.num_images": images.num_images, "data.num_held_out": images.num_held_out,
        "train.evaluate_every": 0, "train.checkpoint_every": 0,
    }  # fmt: skip

    def ours(name: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        given_too = wanted[name]["settings"] | overrides
        return {"config": wanted[name]["config"], "overrides": {k: str(v) for k, v in (common | given_too).items()}}

    with tempfile.TemporaryDirectory() as folder:
        tries = {
            name: Side("benchmarks.ours:training", {**ours(name, {"output_dir": f"{folder}/{i}"}), "steps": 8})
            for i, name in enumerate(wanted)
        }
        rates = {
            name: median(found.rates)
            for name, found in interleave(tries, rounds=1 if given.tiny else 3, title="rates").items()
        }
    plain = {"seconds": given.minutes * 60 / given.marks, "mnist": str(given.mnist), "tiny": given.tiny}
    found = {"plain loop": Side(f"{HERE}:trained_plainly", {**plain, **_place(given, "plain loop")})}
    for name, recipe in wanted.items():
        length = {
            "output_dir": _place(given, name)["folder"] + "/run",
            "train.num_images_seen": round(rates[name] * recipe["minutes"] * 60),
        }
        found[name] = Side(f"{HERE}:trained", {**ours(name, length), "marks": given.marks, **_place(given, name)})
    return found


def _place(given: argparse.Namespace, name: str) -> dict[str, str]:
    return {"recipe": name, "folder": str(given.work / name.replace(", ", "-").replace(" ", "-"))}


@contextmanager
def trained(
    *, recipe: str, folder: str, config: str | None, overrides: dict[str, str], marks: int
) -> Iterator[Measured]:
    """Our trainer with a config, one of `marks` equal parts of its length a round."""
    asked = load_config(config, overrides)
    longest = max(asked.train.num_images_seen, (marks + 1) * asked.train.batch_size)  # a step for each mark
    paced = PacedRun(dataclasses.replace(asked, train=dataclasses.replace(asked.train, num_images_seen=longest)))
    run, saved = paced.run, Marks(Path(folder), recipe)
    steps = (run.num_steps - 1) // marks  # the last step would end it, with its figures

    def train() -> int:
        with saved.training():
            paced.steps(steps)
        saved.save(pipeline_of(run), run.images_seen)
        return steps * run.config.train.batch_size

    try:
        yield Measured(train)
    finally:
        paced.stop()


@contextmanager
def trained_plainly(*, recipe: str, folder: str, seconds: float, mnist: str, tiny: bool) -> Iterator[Measured]:
    """The plain loop, `seconds` a round; no averaged weights, as the paper mentions none."""
    train = load_splits(data(mnist, tiny), seed=0).train
    images = to_unit_range(torch.from_numpy(train.source.images[train.indices_of(torch.arange(len(train))).numpy()]))
    training = PlainTraining(images, 128, TINY_WIDTHS if tiny else WIDTHS)
    saved, seen = Marks(Path(folder), recipe), 0

    def run() -> int:
        nonlocal seen
        before, begin = seen, time.perf_counter()
        with saved.training():
            while time.perf_counter() - begin < seconds:
                seen += training.step()
        saved.save(FastDDPMPipeline(training.unet, FusedDDPMScheduler()), seen)
        return seen - before

    yield Measured(run)


class Marks:
    """The saved pipelines of a recipe, and the time that it trained up to each."""

    def __init__(self, folder: Path, recipe: str):
        self._folder, self._recipe = folder, recipe
        self._number, self._seconds = 0, 0.0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Count the time inside."""
        begin = time.perf_counter()
        yield
        synchronize()
        self._seconds += time.perf_counter() - begin

    def save(self, pipeline: FastDDPMPipeline, images_seen: int) -> None:
        """The next mark."""
        self._number += 1
        place = self._folder / f"mark-{self._number}"
        pipeline.save_pretrained(place)
        facts = {"recipe": self._recipe, "clock minutes": self._seconds / 60, "images seen": images_seen}
        (place / MARK).write_text(json.dumps(facts))


def quality_of(mark: Path, judge: Judge, reals: Tensor, num_samples: int) -> dict[str, Any]:
    """What the judge says of the samples of a mark; kept in its folder."""
    kept = mark / f"quality-{num_samples}.json"
    if not kept.exists():
        kept.write_text(json.dumps(judged(mark, judge, reals, num_samples)))
    return json.loads(kept.read_text())


def judged(folder: Path, judge: Judge, reals: Tensor, num_samples: int) -> dict[str, Any]:
    """What the judge says of the samples of a saved pipeline."""
    pipeline = FastDDPMPipeline.from_pretrained(folder)
    pipeline.unet.eval().to(memory_format=torch.channels_last)
    pipeline.scheduler = scheduler_named("dpmsolver++", pipeline.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        seeds=range(num_samples), num_inference_steps=12, micro_batch_size=min(250, num_samples), output_type="pt"
    ).images
    exact = (images * 255).round() / 127.5 - 1
    return {"FID": feature_fid(judge, exact, reals), "confident": verdict(judge, exact)["confident"]}


def plot(rows: list[dict[str, Any]], floor: float, path: Path) -> None:
    """FID over training minutes, a curve a recipe."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(10, 5), layout="constrained")
    for name, group in itertools.groupby(rows, lambda line: line["recipe"]):
        curve = list(group)
        axis.plot([line["minutes"] for line in curve], [line["FID"] for line in curve], "o-", label=name)
    axis.axhline(floor, color="#888888", linestyle=":", label="reals against reals")
    axis.set(xlabel="minutes of training", ylabel="FID in the judge's features", yscale="log")
    axis.legend(frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left")
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
