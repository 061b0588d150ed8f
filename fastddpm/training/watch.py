"""Looking at a run while it goes on: previews, KID, copies of training images, the page. Training does not notice."""

from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from fastddpm import report
from fastddpm.data.opening import open_file
from fastddpm.measures.features import Features
from fastddpm.process import say
from fastddpm.training.build_network import input_shape
from fastddpm.training.class_share import class_share
from fastddpm.training.draw import draw_samples, grid_columns
from fastddpm.training.kid import KidJudge
from fastddpm.training.metrics import read_metrics
from fastddpm.training.near_copies import Originals, in_words
from fastddpm.training.pace import Pace
from fastddpm.training.page import save_page
from fastddpm.training.previews import FIRST_PICTURE, forget_later, save_preview, save_progress
from fastddpm.training.run import Run
from fastddpm.training.trackers import send_picture

MAX_FIRST, QUICK_STEPS = 40, 50
"""samples of the first picture, and the most steps of the paper's solver for it"""


class Watch:
    """Looks at one run as it goes on; every rank has one and calls the same methods.

    All ranks draw; the main one judges and writes, and the others wait for it at the end of each method.

    Args:
        features: for KID; None: it is not asked for.
    Raises: ValueError: features that do not take the run's images.
    """

    def __init__(self, run: Run, features: Features | None):
        self._run, self._features = run, features
        self._kid: KidJudge | None = None
        self._originals: Originals | None = None
        self._warned = False
        self._pace = Pace(run)
        self._samples_of: tuple[int, np.ndarray | None] = (-1, None)  # step, what the last preview drew
        if features is not None:
            features.check(input_shape(run.config, run.splits.train.image_shape), run.accelerator.device)
        if run.accelerator.is_main_process:
            forget_later(run.folder, run.images_seen)
        run.accelerator.wait_for_everyone()

    def after_step(self) -> None:
        """Do what is due after the step that was just taken."""
        run, config = self._run, self._run.config.watch
        first_due = self._pace.after_step()
        preview_due = just_passed(run, config.preview_every_images)
        kid_due = just_passed(run, config.kid_every_images)
        if not (first_due or preview_due or kid_due):
            return
        with run.log.paused():
            if preview_due:
                self._preview(f"preview at {run.images_seen:,}")
            elif first_due:
                self._first_picture()
            if kid_due:
                self._measure_kid()
            self.save_page()
            run.accelerator.wait_for_everyone()

    def finish(self) -> None:
        """Draw samples.png and look at it, as at a preview; the page is left to `save_page`."""
        run = self._run
        if self._samples_of[0] != run.state.step:  # else a preview was due after the last step
            self._preview("samples")
        samples = self._samples_of[1]
        if samples is not None:
            report.save_grid(samples, run.folder / "samples.png", columns=grid_columns(run, len(samples)))
        run.accelerator.wait_for_everyone()
        if run.config.watch.kid_every_images:
            measured = broadcast_object_list(["kid" in self._values_of_this_step()])[0]  # as the main rank sees it
            if not measured:
                self._measure_kid()
        if samples is not None and "class_share" not in self._values_of_this_step():
            found = class_share(run, samples)
            if found is not None:
                run.log.write(step=run.state.step, images_seen=run.images_seen, **found)
        run.accelerator.wait_for_everyone()

    def save_page(self) -> None:
        """Write report.html; only the main rank does anything."""
        run = self._run
        if run.accelerator.is_main_process:
            save_page(run, read_metrics(run.folder / "metrics.jsonl"))

    def _first_picture(self) -> None:
        """Draw a few samples, quickly, and say where they are."""
        run, sample = self._run, self._run.config.sample
        steps = QUICK_STEPS if sample.scheduler == "ddpm" else sample.num_inference_steps
        count = min(sample.num_images, MAX_FIRST)
        samples = draw_samples(run, count, "first picture", num_inference_steps=min(steps, sample.num_inference_steps))
        if samples is not None:
            path = run.folder / "previews" / FIRST_PICTURE
            report.save_grid(samples, path, columns=grid_columns(run, count))
            say(run.accelerator, f"first picture, after {self._pace.seconds:.0f} s of training: {path}")

    def _preview(self, title: str) -> None:
        run = self._run
        samples = draw_samples(run, run.config.sample.num_images, title)
        self._samples_of = (run.state.step, samples)
        if samples is not None:
            self._keep(samples)
        run.accelerator.wait_for_everyone()

    def _keep(self, samples: np.ndarray) -> None:
        """Keep, on the main rank, what is made of samples at this time."""
        run, seed = self._run, self._run.config.sample.seed
        if run.config.watch.preview_every_images:
            if run.state.step < run.num_steps and not (run.folder / "previews").is_dir():
                say(run.accelerator, f"pictures of the training so far: {run.folder / 'previews'}")
            picture = save_preview(run.folder, run.images_seen, samples, seed, grid_columns(run, len(samples)))
            send_picture(run.accelerator, "samples", np.asarray(open_file(picture).convert("RGB")), run.images_seen)
            save_progress(run.folder, seed)
        if run.config.watch.nearest:
            self._look_for_copies(samples)

    def _look_for_copies(self, samples: np.ndarray) -> None:
        run = self._run
        if self._originals is None:
            self._originals = Originals.of_run(run.config, run.images, run.held_out)
        verdict = self._originals.judge(samples)
        self._originals.save_pairs(samples, verdict, run.folder / "nearest.png")
        found = {
            **self._originals.row(verdict),
            "median_closeness": float(verdict.samples.closeness.median()),
            "crop": run.config.train.random_crop,
            "augmented": run.config.data.augment.is_on,
        }
        row = {f"nearest_{name}": value for name, value in found.items()}
        if "nearest_verdict" not in self._values_of_this_step():
            run.log.write(step=run.state.step, images_seen=run.images_seen, **row)
        if verdict.kind == "copies" and not self._warned:
            self._warned = True
            tqdm.write(f"warning: {in_words(row, len(run.images))}")  # beside the progress bar, not into it

    def _measure_kid(self) -> None:
        run = self._run
        samples = draw_samples(run, run.config.watch.kid_num_samples, "samples for KID")
        if samples is not None:
            assert self._features is not None
            if self._kid is None:
                self._kid = KidJudge(run, self._features)
            try:
                run.log.write(step=run.state.step, images_seen=run.images_seen, **self._kid.row(samples))
            except ValueError as error:  # of what it draws now; training goes on
                tqdm.write(f"warning: no KID at {run.images_seen:,} images: {error}")
        run.accelerator.wait_for_everyone()

    def _values_of_this_step(self) -> dict[str, Any]:
        """All that metrics.jsonl holds of the current step: a finished run that is started again measures no anew."""
        rows = read_metrics(self._run.folder / "metrics.jsonl")
        return {key: value for row in rows if row["step"] == self._run.state.step for key, value in row.items()}


def just_passed(run: Run, every: int) -> bool:
    """True if the last step reached a multiple of `every` images; 0: never."""
    return every > 0 and run.images_seen // every > (run.images_seen - run.config.train.batch_size) // every
