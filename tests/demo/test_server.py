"""Who is let in; how it begins and ends."""

import asyncio
import socket
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from fastddpm import cli
from fastddpm.demo import DemoRequest, server
from tests.demo.browsing import needs_gradio, served


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", *map(str, words)])
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_without_the_extra_it_is_named(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = refused(capsys, "/nowhere")
    assert said.endswith("needs the package gradio, which is not installed; run pip install 'fastddpm[demo]'")


def test_gradio_is_imported_by_nothing_else():
    code = (
        "import sys, fastddpm.cli.options, fastddpm.demo; sys.exit('gradio' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@needs_gradio()
def test_a_port_that_is_taken_is_named(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refused(capsys, "/nowhere", "--port", port)
    assert f"127.0.0.1:{port} cannot be listened on (Address already in use); choose another --port" in said


@needs_gradio()
def test_mistakes_end_with_one_line(capsys):
    assert "--host 300.1.1.1 is no address of this machine" in refused(capsys, "/nowhere", "--host", "300.1.1.1")
    assert "port is 70000; it must be 0 (any that is free) to 65535" in refused(capsys, "/nowhere", "--port", 70_000)
    assert "/nowhere/at/all" in refused(capsys, "/nowhere/at/all", "--port", 0)


def test_requests_are_checked():
    with pytest.raises(ValueError, match="num_inference_steps is 0; it must be at least 1"):
        DemoRequest(model="x", num_inference_steps=0)


def test_it_listens_on_loopback_only():
    with server.listen("127.0.0.1", 0) as opened:
        assert opened.getsockname()[0] == "127.0.0.1"
        for address in other_addresses():
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address, opened.getsockname()[1]), timeout=5)


def other_addresses():
    """This machine's own, without loopback; there may be none."""
    every = (entry for entries in psutil.net_if_addrs().values() for entry in entries)
    return [entry.address for entry in every if entry.family == socket.AF_INET and entry.address != "127.0.0.1"]


def test_large_requests_are_refused_before_they_are_read():
    async def app(scope, receive, send):
        raise AssertionError("it was let in")

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": [(b"content-length", str(server.MAX_REQUEST_BYTES + 1).encode())]}
    asyncio.run(server.Guarded(app)(scope, None, send))
    assert sent[0]["status"] == 413
    assert sent[1]["body"] == b"larger than 32 MiB: make it smaller first"


def test_a_request_of_unknown_length_ends_at_the_limit():
    seen = []

    async def app(scope, receive, send):
        while (message := await receive())["type"] == "http.request":
            seen.append(len(message["body"]))

    async def receive():
        return {"type": "http.request", "body": b"x" * 2**20, "more_body": True}

    asyncio.run(server.Guarded(app)({"type": "http", "headers": []}, receive, None))
    assert sum(seen) <= server.MAX_REQUEST_BYTES


@needs_gradio()
def test_addresses_of_other_machines_are_not_fetched():
    import gradio as gr

    from fastddpm.demo.parts import as_file

    for address in ("http://example.com/a.png", "https://example.com/a.png"):
        with pytest.raises(gr.Error, match="a picture is an address; give the file itself"):
            asyncio.run(as_file(gr.Image()).async_move_resource_to_block_cache(address))


@needs_gradio()
def test_stop_ends_the_computation_of_its_own_session(run):
    from fastddpm.demo.answers import Stopped
    from fastddpm.demo.page import Stops

    stops, seen = Stops(), []
    mine, other = SimpleNamespace(session_hash="a"), SimpleNamespace(session_hash="b")
    told = stops.on_step(run, mine, lambda done, unit: seen.append(done))
    stops.stop(other)
    told(1, 8)
    stops.stop(mine)
    with pytest.raises(Stopped):
        told(2, 8)
    assert seen == [(1, 8)]
    stops.on_step(run, mine, lambda done, unit: seen.append(done))(1, 8)  # the next one is not stopped


@pytest.mark.slow
@needs_gradio()
def test_another_host_is_warned_of_and_reached(run_folder, tmp_path):
    with served(tmp_path, str(run_folder), "--host", "0.0.0.0") as demo:
        assert "warning: 0.0.0.0 is not loopback: anyone who reaches this machine can use the page" in (
            demo.output.read_text()
        )
        for address in ("127.0.0.1", *other_addresses()):
            socket.create_connection((address, demo.port), timeout=5).close()
