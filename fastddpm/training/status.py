"""status.json: how far a run is, for whoever watches it from outside; Kubeflow Trainer is told the same."""

import json
import os
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fastddpm.files import write_json
from fastddpm.training.run import Run
from fastddpm.training.stopping import Stopped

SECONDS_BETWEEN = 10.0
_LOSSES = ("loss", "train_set_loss", "held_out_loss")


class Status:
    """The status of a run, written whole by the main rank; the others' do nothing."""

    def __init__(self, run: Run):
        self._run, self._is_main = run, run.accelerator.is_main_process
        self._at, self._images = time.monotonic(), run.images_seen
        self._rate: float | None = None
        self._posting: threading.Thread | None = None
        self._warned = False

    @contextmanager
    def kept(self) -> Iterator["Status"]:
        """Say how the run begins and ends: finished, stopped (it can go on) or failed."""
        self.write("training")
        try:
            yield self
        except BaseException as error:
            self.write("stopped" if isinstance(error, Stopped) else "failed")
            raise
        self.write("finished")

    def after_step(self) -> None:
        """Write, if the last time is long enough ago; nothing is read from the device."""
        if time.monotonic() - self._at >= SECONDS_BETWEEN:
            self.write("training")

    def write(self, state: str) -> None:
        """Write what there is to say now."""
        run, now = self._run, time.monotonic()
        if not self._is_main:
            return
        if run.images_seen > self._images:
            self._rate = (run.images_seen - self._images) / (now - self._at)
        self._at, self._images = now, run.images_seen
        goal = run.num_steps * run.config.train.batch_size
        status = {
            "state": state,
            "percent": round(100 * run.images_seen / goal, 2),
            "seconds_left": None if self._rate is None else round((goal - run.images_seen) / self._rate),
            "images_per_second": None if self._rate is None else round(self._rate, 2),
            "step": run.state.step,
            "num_steps": run.num_steps,
            "images_seen": run.images_seen,
            "losses": {name: run.log.newest[name] for name in _LOSSES if run.log.newest.get(name) is not None},
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(run.folder / "status.json", status)
        if url := os.environ.get("KUBEFLOW_TRAINER_SERVER_URL"):
            self._tell(url, status, is_last=state != "training")

    def _tell(self, url: str, status: dict[str, Any], is_last: bool) -> None:
        """POST to Kubeflow Trainer (its TrainJob progress) beside training, which never waits for it but at its end."""
        if self._posting is not None and (is_last or self._posting.is_alive()):
            self._posting.join(5 if is_last else 0)
        if self._posting is None or not self._posting.is_alive():
            self._posting = threading.Thread(target=self._post, args=(url, status), daemon=True)
            self._posting.start()
        if is_last:
            self._posting.join(5)

    def _post(self, url: str, status: dict[str, Any]) -> None:
        told = {
            "progressPercentage": int(status["percent"]),
            "metrics": [{"name": name, "value": str(value)} for name, value in status["losses"].items()],
            "lastUpdatedTime": status["updated"],
        }
        if status["seconds_left"] is not None:
            told["estimatedRemainingSeconds"] = status["seconds_left"]
        try:
            token = Path(os.environ["KUBEFLOW_TRAINER_SERVER_TOKEN"]).read_text().strip()  # it is renewed meanwhile
            trusted = ssl.create_default_context(cafile=os.environ["KUBEFLOW_TRAINER_SERVER_CA_CERT"])
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            body = json.dumps({"trainerStatus": told}).encode()
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=5, context=trusted):
                pass
        except (OSError, KeyError, ValueError) as error:
            if not self._warned:
                tqdm.write(f"warning: Kubeflow is not told how far the run is: {error!r}")
            self._warned = True
