"""Training: `train(config)` is the whole of it."""

import os

from fastddpm.config import RunConfig
from fastddpm.hub import write_card
from fastddpm.measures.features import load_features
from fastddpm.process import borrowed_process, say
from fastddpm.training.finish import finish, left_behind, missing
from fastddpm.training.folder import RunFolder, write_data_report
from fastddpm.training.loop import fit
from fastddpm.training.publish import Publisher
from fastddpm.training.run import Run, open_run
from fastddpm.training.status import Status
from fastddpm.training.stopping import Stopping, asked_by_signals
from fastddpm.training.trackers import check_extras
from fastddpm.training.watch import Watch
from fastddpm.training.watchdog import loss_explained


def train(config: RunConfig) -> RunFolder:
    """Train to the end, going on from the run folder's newest checkpoint; save the pipeline, draw the pictures.

    With `push_to_hub` in the config the saved pipeline is published too. Every process of a launcher calls it, also of
    Accelerate's `notebook_launcher`.

    Returns: the path of the run folder, which `DiffusionPipeline.from_pretrained` loads; a notebook shows its samples.
    Raises: Stopped: SIGTERM, SIGINT or SIGUSR1 came; a checkpoint of the last step is there (see `stopping`).
    """
    check_extras(config.watch)
    features = None if config.watch.features is None else load_features(config.watch.features)
    opened: list[Run] = []

    def where() -> str:
        step = f"step {opened[0].state.step + 1}" if opened else "before its first step"
        return f"rank {os.environ.get('RANK', '0')}, {step}"

    with borrowed_process(), asked_by_signals() as stopping, loss_explained(where), open_run(config) as run:
        opened.append(run)
        watch = Watch(run, features)
        publisher = Publisher(run, watch)
        gone = missing(run)
        if gone is not None:
            if gone:
                finish(run, watch, gone)
            elif run.accelerator.is_main_process:
                write_card(run.folder)  # the last file of `finish`: a kill may have come before it
            more = "a longer run has a larger --train.num_images_seen, another one another --out"
            say(run.accelerator, f"{run.folder} is finished already, {run.images_seen:,} images seen: {more}")
        else:
            _train(run, watch, publisher, stopping)
        publisher.finish()
        return RunFolder(run.folder)


def _train(run: Run, watch: Watch, publisher: Publisher, stopping: Stopping) -> None:
    if run.accelerator.is_main_process:
        (run.folder / "about.json").unlink(missing_ok=True)  # of a shorter run, which was finished
        write_data_report(run.splits, run.folder)

    def after_step() -> None:
        watch.after_step()
        publisher.after_step()
        status.after_step()

    with Status(run).kept() as status:
        fit(run, after_step, stopping)
        status.write("drawing")
        finish(run, watch, left_behind(run))
