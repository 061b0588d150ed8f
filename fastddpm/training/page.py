"""report.html, all about a run on one page: the network, the images, the machine, how far, how fast, how it loads."""

import importlib.util
import json
import shlex
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastddpm.config import to_yaml
from fastddpm.files import write_json
from fastddpm.models.paper_unet import PaperUNet2DModel
from fastddpm.pipelines.generate import FastDDPMPipeline
from fastddpm.pipelines.portable import numbered
from fastddpm.process import device_name, program, versions
from fastddpm.report.charts import Rows, charts_of
from fastddpm.report.page_pieces import save_document
from fastddpm.training.draw import pipeline_of
from fastddpm.training.metrics import training_time
from fastddpm.training.near_copies import in_words
from fastddpm.training.numbers import numbers_of
from fastddpm.training.previews import FIRST_PICTURE
from fastddpm.training.run import Run

Facts = list[tuple[str, str]]


def save_page(run: Run, rows: Rows) -> None:
    """Write report.html and, for programs, about.json.

    Args:
        rows: of metrics.jsonl.
    """
    is_done = run.state.step == run.num_steps
    goal = run.num_steps * run.config.train.batch_size
    previews = run.folder / "previews"
    pictures = [previews / FIRST_PICTURE, *sorted(previews.glob("[0-9]*.png"))]
    if is_done:
        commands = [("In a shell", "\n".join(next_commands(run))), *loading_lines(run.folder, pipeline_of(run))]
    else:
        when = "samples of its newest" if any((run.folder / "checkpoints").glob("step-*")) else "once it has its first"
        line = f"{program()} sample {shlex.quote(str(run.folder))} --num_images 64 --out samples-so-far.png"
        commands = [(f"The run goes on; {when} checkpoint:", line)]
    write_page(
        run.folder,
        rows,
        {
            "state": "finished" if is_done else f"{run.images_seen / goal:.0%} of {goal:,} images",
            "facts": [*_what(run), *_how_far(run, rows), *_where(run)],
            "numbers": [number._asdict() for number in numbers_of(run, rows)],
            "verdict": _verdict(run, rows),
        },
        commands=commands,
        config=to_yaml(run.config),
        preview=None if is_done else pictures[-1],
    )


def write_page(
    folder: Path, rows: Rows, about: dict[str, Any], *, commands: Facts, config: str, preview: Path | None = None
) -> None:
    """Write the page and the record of a folder, each in one move; of the run's pictures, those that exist are shown.

    Args:
        about: the record: `state`, such as "finished"; `numbers`, the few that matter, each a value, a title and a
            sentence; `facts`, names and values; `verdict`, whether samples copy training images, as ("good", "bad" or
            "open", words), or None.
        commands: what lines of code do, and the lines.
        preview: the newest grid of samples, shown while there is no samples.png of the end.
    """
    save_document(
        folder / "report.html", "training/page.html", **about, title=folder.name, folder=folder, commands=commands,
        config=config, charts=charts_of(rows), data=_data(folder / "data.json"),
        samples=preview or folder / "samples.png",
        samples_of_others=[] if preview else sorted(folder.glob("samples-ema-*.png")),
    )  # fmt: skip
    write_json(folder / "about.json", about)


def _data(path: Path) -> Any:
    """The counts of the images, as far as there are any; why not, if they cannot be read."""
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return f"data.json cannot be read: {error}"
    return {name.replace("_", " "): value for name, value in record.items() if value not in ({}, [])}


def loading_lines(folder: Path, pipeline: FastDDPMPipeline) -> Facts:
    """Lines of Python that load a folder and draw, each with what it does: with this package, and without it."""
    is_plain = pipeline.num_classes is None and not isinstance(pipeline.unet, PaperUNet2DModel)
    draw = "images = pipeline(batch_size=10).images"
    lines = (
        f'from diffusers import DiffusionPipeline\npipeline = DiffusionPipeline.from_pretrained("{folder}"%s)\n{draw}'
    )
    return [
        ("With fastddpm", f"import fastddpm\n{lines % ''}"),
        ("Without it, in diffusers alone", lines % ("" if is_plain else ", trust_remote_code=True")),
    ]


def next_commands(run: Run) -> list[str]:
    """Three command lines to go on with, as a shell in this folder takes them."""
    call, folder = program(), shlex.quote(str(run.folder))
    name, source = "held_out", run.splits.held_out
    if len(source) < 2:
        name, source = "train", run.splits.train
    some = shlex.quote(f"{run.folder}:{name}#0:{min(5, len(source))}")
    num_train = run.config.scheduler.num_train_timesteps
    start = "" if num_train >= START else f" --start_timesteps {max(1, num_train // 3)}"
    has_page = importlib.util.find_spec("gradio") is not None
    return [
        f"{call} sample {folder} --num_images 64 --out more-samples.png",
        f"{call} vary {folder} {some}{start} --out variations.png",
        f"{call} demo {folder}" if has_page else f"{call} cutmix {folder} {some}{start} --out blends.png",
    ]


START = 300
"""the timestep where `vary` and `cutmix` start, unless asked otherwise"""


def _what(run: Run) -> Facts:
    channels, height, width = run.splits.train.image_shape
    unet, model, crop = run.state.ema.model, run.config.model, run.config.train.random_crop
    crops = "" if crop is None else f", in crops of {crop} x {crop}"
    facts = [
        ("network", type(unet).__name__),
        ("parameters", f"{sum(p.numel() for p in unet.parameters()):,}"),
        ("levels", ", ".join(str(width) for width in unet.config.block_out_channels)),
        ("predicts", run.config.scheduler.prediction_type),
        ("training images", f"{len(run.splits.train):,}"),
        ("held-out images", f"{len(run.splits.held_out):,}"),
        ("size", f"{width} x {height}, {'grayscale' if channels == 1 else 'colour'}{crops}"),
    ]
    names = run.splits.train.source.label_names if model.class_conditional else None
    return facts + ([("classes", f"{len(names)}: {numbered(names)}")] if names else [])


def _how_far(run: Run, rows: Rows) -> Facts:
    """Images and time; the loop alone counts as training time, also over restarts."""
    rates = [row for row in rows if row.get("images_per_second")]
    seconds, seen = training_time(rows)
    shares = [row["peak_share"] for row in rates if row.get("peak_share") is not None]
    waits = [row["data_wait_share"] for row in rates if row.get("data_wait_share") is not None]
    facts = [
        ("images seen", f"{run.images_seen:,}"),
        ("optimizer steps", f"{run.state.step:,}"),
        ("batch", f"{run.split.batch_size} in {run.split.num_micro_batches} of {run.split.micro_batch_size}"),
        ("training time", str(timedelta(seconds=round(seconds))) if rates else "n/a"),
        ("images per second", f"{seen / seconds:,.0f}" if seconds else "n/a"),
        ("share of the device's peak", f"{sum(shares) / len(shares):.1%}" if shares else "n/a"),
    ]
    facts += [("time waiting for data", f"{sum(waits) / len(waits):.1%}")] if waits else []
    names = {"loss": "loss", "train_set_loss": "loss, training images", "held_out_loss": "loss, held-out images"}
    newest = {key: row[key] for row in rows for key in (*names, "kid") if row.get(key) is not None}
    facts += [(shown, f"{newest[key]:.4f}") for key, shown in names.items() if key in newest]
    return facts + ([("KID", f"{newest['kid']:.5f}")] if "kid" in newest else [])


def _where(run: Run) -> Facts:
    accelerator = run.accelerator
    precision = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    return [
        ("device", device_name(accelerator.device)),
        ("processes", str(accelerator.num_processes)),
        ("precision", precision),
        ("versions", versions()),
    ]


def _verdict(run: Run, rows: Rows) -> Any:
    """The newest comparison with the training images, as the page shows it."""
    found = [row for row in rows if "nearest_verdict" in row]
    if not found or not run.config.watch.nearest:
        return None
    kind = {"copies": "bad", "no copies": "good", "cannot tell": "open"}[found[-1]["nearest_verdict"]]
    return kind, in_words(found[-1], len(run.splits.train))
