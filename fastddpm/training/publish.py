"""A run on its way to the Hub: at its end, and while it goes on, in a thread of its own."""

import shlex
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from fastddpm import hub
from fastddpm.hub import Pushed
from fastddpm.training.draw import pipeline_of
from fastddpm.training.run import Run
from fastddpm.training.watch import Watch, just_passed


class Publisher:
    """Pushes the averaged weights to `push_to_hub`, if the config names one; every rank has one, the main one pushes.

    Raises: ValueError: a name, or a token, with which nothing could be pushed at the end.  OSError: no way to the Hub.
    """

    def __init__(self, run: Run, watch: Watch):
        self._run, self._watch = run, watch
        self._pool = ThreadPoolExecutor(1, "push")
        self._pushing: Future[Pushed] | None = None
        if run.config.push_to_hub is not None:
            self._check(run.config.push_to_hub)

    def _check(self, repo_id: str) -> None:
        problem: Exception | None = None
        if self._run.accelerator.is_main_process:
            try:
                hub.check_can_push(repo_id, self._run.config.hub.revision)
            except (ValueError, OSError) as error:
                problem = error
        problem = broadcast_object_list([problem])[0]  # all ranks stop, or none
        if problem is not None:
            raise problem

    def after_step(self) -> None:
        """Start a push if one is due; while one is under way, the next is left out. Training does not wait."""
        run = self._run
        is_last = run.state.step == run.num_steps
        if self._is_off() or is_last or not just_passed(run, run.config.hub.every_images):
            return
        if self._pushing is not None and not self._pushing.done():
            tqdm.write(f"no push at {run.images_seen:,} images: the one before is still under way")
            return
        problem = None if self._pushing is None else self._pushing.exception()
        if problem is not None:
            tqdm.write(f"warning: a push failed, training goes on: {problem}")
        try:
            with run.log.paused():
                folder = self._snapshot()
        except ValueError as error:
            tqdm.write(f"warning: a push failed, training goes on: {error}")
            return
        self._pushing = self._pool.submit(self._push, folder, f"After {run.images_seen:,} images")

    def finish(self) -> None:
        """Push the finished run; every rank calls it, and the others wait for the main one.

        Raises: ValueError, OSError: it was not pushed, which the main rank says; the run itself is whole on the disk.
        """
        try:
            if not self._is_off():
                self._push_the_end()
        finally:
            self._pool.shutdown()
            self._run.accelerator.wait_for_everyone()

    def _push_the_end(self) -> None:
        run = self._run
        if self._pushing is not None:
            self._pushing.exception()  # what it had to say, the push of the end says anew
        shutil.rmtree(self._place, ignore_errors=True)
        try:
            done = self._push(run.folder, f"After {run.images_seen:,} images, the end of training")
        except (ValueError, OSError) as error:
            kind = ValueError if isinstance(error, ValueError) else OSError
            raise kind(
                f"the run in {run.folder} is whole, but was not pushed: {error}; then: {self._line_for_later()}"
            ) from None
        print(f"{done.url}: {'pushed' if done.changed else 'was up to date'}")

    def _is_off(self) -> bool:
        return self._run.config.push_to_hub is None or not self._run.accelerator.is_main_process

    @property
    def _place(self) -> Path:
        return self._run.folder / ".push"

    def _snapshot(self) -> Path:
        """The model as it is now, saved apart from the run's own, with what its card is written from."""
        run = self._run
        shutil.rmtree(self._place, ignore_errors=True)
        pipeline_of(run).save_pretrained(self._place)
        self._watch.save_page()  # and about.json
        for name in hub.RECORDS:
            if (run.folder / name).exists():
                hub.stage(run.folder, name, self._place / name)
        previews = sorted((run.folder / "previews").glob("[0-9]*.png"))
        if previews:
            hub.stage(run.folder, previews[-1].relative_to(run.folder), self._place / "samples.png")
        return self._place

    def _push(self, folder: Path, message: str) -> Pushed:
        config = self._run.config
        assert config.push_to_hub is not None
        return hub.push(
            folder, config.push_to_hub, private=config.hub.private, revision=config.hub.revision,
            license=config.hub.license, commit_message=message,
        )  # fmt: skip

    def _line_for_later(self) -> str:
        """The command that pushes the finished run as this config does."""
        config = self._run.config
        words = ["fastddpm", "push", str(self._run.folder), str(config.push_to_hub)]
        words += ["--private"] if config.hub.private else []
        words += ["--revision", config.hub.revision] if config.hub.revision else []
        words += ["--license", config.hub.license] if config.hub.license else []
        return shlex.join(words)
