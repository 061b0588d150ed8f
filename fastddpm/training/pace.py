"""The speed of a run: how long it will take, and when its first picture is due, told by its first steps."""

import math
import time

import torch
from accelerate.utils import broadcast_object_list

from fastddpm.process import say
from fastddpm.training.length import in_minutes
from fastddpm.training.run import Run

MEASURED_STEPS, MEASURED_SECONDS = 20, 20.0
"""the speed is that of so many steps, or of those of so many seconds"""
FIRST_PICTURE_SECONDS = 40.0
"""after training begins: with the drawing it is there within a minute"""


class Pace:
    """The speed of the first steps of a process; every rank has one and asks it after each step."""

    def __init__(self, run: Run):
        self._run, self._first, self._began = run, run.state.step, time.perf_counter()
        self._warm, self._due, self._is_measured = 0.0, -1, False

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self._began

    def after_step(self) -> bool:
        """Say whether the first picture is due after the step that was just taken: the same on all ranks."""
        if not self._is_measured:
            self._measure()
        return self._run.state.step == self._due

    def _measure(self) -> None:
        """Wait for the device, and decide as the main rank's clock says."""
        run, taken = self._run, self._run.state.step - self._first
        if run.accelerator.device.type != "cpu":
            torch.accelerator.synchronize()
        elapsed, has_pictures = self.seconds, (run.folder / "previews").is_dir()
        if run.accelerator.num_processes > 1:
            elapsed, has_pictures = broadcast_object_list([elapsed, has_pictures])
        if taken == 1:
            self._warm = elapsed  # it compiles, and tries kernels
        if taken < MEASURED_STEPS and elapsed < MEASURED_SECONDS:
            return
        self._is_measured = True
        per_step = (elapsed - self._warm) / (taken - 1) if taken > 1 else elapsed
        rate, left = run.config.train.batch_size / per_step, run.num_steps - run.state.step
        say(
            run.accelerator,
            f"{rate:,.{int(rate < 10)}f} images a second: {in_minutes(left * per_step)} of training left",
        )
        due = run.state.step + max(0, round((FIRST_PICTURE_SECONDS - elapsed) / per_step))
        earlier = run.config.watch.preview_every_images or math.inf  # a preview comes first
        if not has_pictures and due < run.num_steps and due * run.config.train.batch_size < earlier:
            self._due = due
