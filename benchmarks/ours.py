"""Our side of the comparisons: the real thing, `fit` and the pipelines, in steps that a harness can ask for."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.peers.loops import synchronize
from benchmarks.worker import Measured
from fastddpm.config import RunConfig, load_config
from fastddpm.training.build_network import input_shape
from fastddpm.training.cost import flops_per_image
from fastddpm.training.loop import fit
from fastddpm.training.run import Run, open_run

FOREVER = 10**9
"""images: longer than any benchmark"""


class PacedRun:
    """A run whose training stands still but for the steps that are asked for. It is the loop itself, in a thread."""

    def __init__(self, config: RunConfig):
        self._config = config
        self._run: Run | None = None
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._failure: BaseException | None = None
        self._is_over = False
        threading.Thread(target=self._train, daemon=True).start()
        self._wait(1)

    def steps(self, count: int) -> None:
        """Take so many, logs included."""
        for _ in range(count):
            self._go.release()
        self._wait(count)
        synchronize()

    @property
    def run(self) -> Run:
        """The run itself, while it stands still."""
        assert self._run is not None
        return self._run

    def stop(self) -> None:
        """End it in the middle."""
        self._is_over = True
        self._go.release()
        self._done.acquire(timeout=60)

    def _train(self) -> None:
        try:
            with open_run(self._config) as run:
                self._run = run
                self._pause()
                fit(run, self._pause)
        except _Over:
            pass
        except BaseException as error:
            self._failure = error
        self._done.release()

    def _pause(self) -> None:
        self._done.release()
        self._go.acquire()
        if self._is_over:
            raise _Over

    def _wait(self, count: int) -> None:
        for _ in range(count):
            self._done.acquire()
            if self._failure is not None:
                raise self._failure


class _Over(Exception):
    pass


@contextmanager
def training(*, config: str, overrides: Mapping[str, Any], steps: int) -> Iterator[Measured]:
    """`steps` optimizer steps of a config a round."""
    paced = PacedRun(load_config(config, {"train.num_images_seen": FOREVER, **overrides}))
    run = paced.run
    batch_size = run.config.train.batch_size

    def take_steps() -> int:
        paced.steps(steps)
        return steps * batch_size

    flops = flops_per_image(run.state.unet, input_shape(run.config, run.splits.train.image_shape))
    facts = {
        "parameters": sum(p.numel() for p in run.state.unet.parameters()), "GFLOP an image": round(flops / 1e9, 4),
    }  # fmt: skip
    try:
        yield Measured(take_steps, facts)
    finally:
        paced.stop()
