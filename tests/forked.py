"""Python programs in processes of their own that need not import torch and diffusers again, which takes four seconds of
a core: each is forked from a server that did so once. What a program must see at its own start (the environment that
an import reads, the command itself) wants `subprocess`."""

import atexit
import multiprocessing
import os
import resource
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

IMPORTED = ("tests.forked", "fastddpm.training.run", "fastddpm.training.finish", "fastddpm.verbs.sample.samples")


def run_python(
    words: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 240,
    most_file_bytes: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """`python WORDS` to its end; as `subprocess.run(..., capture_output=True, text=True)` in all else.

    Args:
        words: a script, or -c and code, or -m and a module; then the arguments.
        env: the whole environment; None: this one.
        most_file_bytes: the size no file may pass.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    given = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        arguments = (given, dict(os.environ if env is None else env), outputs, most_file_bytes)
        process = context.Process(target=_run, args=arguments)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(given, timeout)
        return subprocess.CompletedProcess(given, process.exitcode, *(path.read_text() for path in outputs))


def run_ranks(
    words: Sequence[str | Path], processes: int, *, env: Mapping[str, str] | None = None
) -> list[subprocess.CompletedProcess[str]]:
    """The same on several processes, which find each other as under torchrun; none is ended when another fails.

    Returns: the finished processes, by rank.
    """
    group = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": str(free_port()), "ACCELERATE_USE_CPU": "true"}  # fmt: skip
    given = {**os.environ, **group, **(env or {})}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(lambda rank: run_python(words, env={**given, **rank}), ranks))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run(words: list[str], env: dict[str, str], outputs: list[Path], most_file_bytes: int | None) -> None:
    for number, (path, name) in enumerate(zip(outputs, ("stdout", "stderr"), strict=True), start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        setattr(sys, name, open(number, "w", buffering=1, closefd=False))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(env)
    if most_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_file_bytes, most_file_bytes))
    first, *others = words
    try:
        if first == "-c":
            sys.argv = ["-c", *others[1:]]
            exec(compile(others[0], "<string>", "exec"), {"__name__": "__main__"})
        elif first == "-m":
            sys.argv = others
            runpy.run_module(others[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(first, run_name="__main__")
    finally:
        atexit._run_exitfuncs()
