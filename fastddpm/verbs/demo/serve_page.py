"""`fastddpm demo`: opens the model, the page and the socket, and serves until it is interrupted."""

import signal
import sys
import tempfile

from fastddpm.config.early_checks import check_installed
from fastddpm.verbs.demo.request import DemoRequest


def demo(request: DemoRequest) -> None:
    """Serve the page until it is interrupted.

    Raises: ValueError: Gradio is not installed; a model that cannot be opened. OSError: the port is taken.
    """
    check_installed("fastddpm demo", "gradio", "demo")
    from fastddpm.verbs.demo.opened_model import opened
    from fastddpm.verbs.demo.server import app_of, listen, quiet_gradio, serve

    with listen(request.host, request.port) as socket, tempfile.TemporaryDirectory(prefix="fastddpm-demo-") as uploads:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the folder goes
        quiet_gradio(uploads)
        with opened(request) as run:
            serve(app_of(run, request.host), socket, run)
