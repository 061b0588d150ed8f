"""`fastddpm demo`: a page in the browser for one's own model. Gradio, an optional extra, is imported here only.

opened.py     the model, and what is known of it
answers.py    what the page asks of it: pictures in, pictures out; knows no page
page.py       the page; parts.py, the pieces it is made of
server.py     who is let in, and what leaves the machine: nothing
"""

import importlib.util
import tempfile
from dataclasses import dataclass

from fastddpm.config import SamplerName

PORT = 7860
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class DemoRequest:
    """What `fastddpm demo` is asked for."""

    model: str
    host: str = "127.0.0.1"
    port: int = PORT
    """0: any that is free"""
    scheduler: SamplerName = "dpmsolver++"
    """what the page begins with; all may be chosen there"""
    num_inference_steps: int = 20
    """likewise; of a start below that, as many as the start"""
    normal: str | None = None
    """normal images for the anomaly map: any data.source; None: the run's held-out ones"""
    num_threads: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}; it must be 0 (any that is free) to 65535")
        for name in ("num_inference_steps", "num_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")


def demo(request: DemoRequest) -> None:
    """Serve the page until it is interrupted.

    Raises: ValueError: Gradio is not installed; a model that cannot be opened. OSError: the port is taken.
    """
    check_extra()
    from fastddpm.demo.opened import opened
    from fastddpm.demo.server import app_of, listen, quiet_gradio, serve

    with listen(request.host, request.port) as socket, tempfile.TemporaryDirectory(prefix="fastddpm-demo-") as uploads:
        quiet_gradio(uploads)
        from fastddpm.demo.page import page_of

        with opened(request.model, request.num_threads, request.normal) as run:
            page = page_of(run, request.scheduler, request.num_inference_steps)
            serve(app_of(page, request.host), socket, run)


def check_extra() -> None:
    """Raises: ValueError: Gradio is missing; names the extra that brings it."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError(
            "fastddpm demo needs the package gradio, which is not installed; run pip install 'fastddpm[demo]'"
        )
