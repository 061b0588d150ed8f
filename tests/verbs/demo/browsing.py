"""A demo in a process of its own, and a browser that looks at it."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

# Whom the process asks for anything is written down: no page of ours makes it ask another machine. (An audit hook would
# see as much, and make the start five times as long.)
WATCHED = """
import socket
def watched(original, address_of):
    def asks(*given, **named):
        address = address_of(given)
        if address not in (None, "127.0.0.1", "0.0.0.0", "localhost"):
            print(address, file=open({log!r}, "a"))
        return original(*given, **named)
    return asks
def of_connect(given):
    return given[1][0] if isinstance(given[1], tuple) else None
for name in ("connect", "connect_ex"):
    setattr(socket.socket, name, watched(getattr(socket.socket, name), of_connect))
socket.getaddrinfo = watched(socket.getaddrinfo, lambda given: given[0])
from fastddpm.cli import main
main({words!r})
"""
SECONDS_TO_START = 300
"""much, for machines that do other things too"""


def why_no_browser() -> str | None:
    """What is missing, of what the tests of the page need."""
    for package in ("gradio", "playwright"):
        if importlib.util.find_spec(package) is None:
            return f"the package {package} is not installed"
    return None if shutil.which("chromium") else "there is no chromium"


def needs_gradio() -> pytest.MarkDecorator:
    missing = importlib.util.find_spec("gradio") is None
    return pytest.mark.skipif(missing, reason="the package gradio is not installed")


class Served:
    """A running demo."""

    def __init__(self, process: subprocess.Popen, output: Path, asked: Path):
        self.process, self.output, self._asked = process, output, asked

    @property
    def url(self) -> str:
        return re.search(r"http://\S+", self.output.read_text())[0]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def others_asked(self) -> str:
        """The addresses of other machines that the process asked for anything."""
        return self._asked.read_text() if self._asked.exists() else ""

    def interrupt(self) -> int:
        """Ctrl-C.  Returns: the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(120)


@contextmanager
def served(folder: Path, *words: str):
    """`fastddpm demo` with these words, on any port."""
    folder.mkdir(parents=True, exist_ok=True)
    output, asked = folder / "output.txt", folder / "asked.txt"
    code = WATCHED.format(log=str(asked), words=["demo", *words, "--port", "0", "--num_threads", "1"])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=file, stderr=subprocess.STDOUT, env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
    try:
        end = time.monotonic() + SECONDS_TO_START
        while "Ctrl-C" not in output.read_text():
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < end, output.read_text()
            time.sleep(0.1)
        yield Served(process, output, asked)
    finally:
        process.kill()
        process.wait()
