"""Who is let in; how it begins and ends."""

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, cli
from fastddpm.verbs.demo import guarded as guard
from fastddpm.verbs.demo import server
from fastddpm.verbs.demo.readers import Readers
from fastddpm.verbs.demo.request import DemoRequest
from tests.conftest import tiny_unet
from tests.verbs.demo.browsing import needs_gradio, served

LONG = 100_000
"""timesteps of a chain"""
PATIENCE = 120
"""seconds, much, for machines that do other things too; an answer by all of `LONG` takes longer"""


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", *map(str, words)])
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def model(unet, scheduler, tmp_path):
    FastDDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_without_the_extra_it_is_named(model, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *of: None if name == "gradio" else find(name, *of))
    said = refused(capsys, model)
    assert said.endswith("needs the package gradio, which is not installed; run pip install 'fastddpm[demo]'")


def test_gradio_is_imported_by_nothing_else():
    code = (
        "import sys, fastddpm.cli.parser, fastddpm.verbs.demo.request; "
        "sys.exit('gradio' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@needs_gradio()
def test_a_port_that_is_taken_is_named(model, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refused(capsys, model, "--port", port)
    assert f"127.0.0.1:{port} cannot be listened on (Address already in use); choose another --port" in said


@needs_gradio()
def test_mistakes_end_with_one_line(model, capsys):
    assert "--host 300.1.1.1 is no address of this machine" in refused(capsys, model, "--host", "300.1.1.1")
    assert "port is 70000; it must be at most 65535" in refused(capsys, model, "--port", 70_000)
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


def guarded(app=None, folder="/nowhere"):
    async def refusing(scope, receive, send):
        raise AssertionError("it was let in")

    return guard.Guarded(app or refusing, guard.Uploads(folder), Readers(None))


def answer_to(app, asked, **headers):
    """Status and text of what a request gets; every other word of `headers` is its name with a line for a stroke."""
    sent = []

    async def send(message):
        sent.append(message)

    method, path = asked.split(" ", 1)
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": named, "query_string": b""}
    asyncio.run(app(scope, None, send))
    return sent[0]["status"], sent[1]["body"].decode()


UPLOAD = "POST /gradio_api/upload"


def test_large_requests_are_refused_before_they_are_read():
    many = str(guard.MAX_UPLOAD_BYTES + 1)
    assert answer_to(guarded(), UPLOAD, content_length=many) == (413, "larger than 33 MiB: make it smaller first")
    assert answer_to(guarded(), "POST /gradio_api/queue/join", content_length=str(2**23))[0] == 413


def test_a_request_of_unknown_length_ends_at_the_limit(tmp_path):
    seen = []

    async def app(scope, receive, send):
        while (message := await receive())["type"] == "http.request":
            seen.append(len(message["body"]))

    async def receive():
        return {"type": "http.request", "body": b"x" * 2**20, "more_body": True}

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/gradio_api/upload",
        "headers": [(b"transfer-encoding", b"chunked")],
    }
    asyncio.run(guarded(app, tmp_path)(scope, receive, None))
    assert 2**20 < sum(seen) <= guard.MAX_UPLOAD_BYTES


def test_uploads_at_once_are_limited_in_sum(tmp_path):
    sent = []

    async def app(scope, receive, send):
        sent.append(answer_in_thread(all_of_them, UPLOAD, content_length=str(2**25)))

    def answer_in_thread(*asked, **headers):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(answer_to, *asked, **headers).result()

    all_of_them = guarded(app, tmp_path)
    with pytest.raises(IndexError):  # the innermost is refused; the outer ones send nothing of their own
        answer_to(all_of_them, UPLOAD, content_length=str(2**25))
    assert sent[0] == (503, "too many pictures arrive at once: try again in a moment")
    assert not all_of_them._uploads.num_arriving


def test_what_came_in_goes_by_age_and_by_sum_whatever_it_is(tmp_path, monkeypatch):
    own, links = tmp_path / "own" / "shown.png", tmp_path / "more"
    for folder in (own.parent, links):
        folder.mkdir()
    own.write_bytes(bytes(100))
    uploads = guard.Uploads(tmp_path)
    for name in ("whole.png", "tmp_broken_off", "recording.webm"):
        (links / name).write_bytes(bytes(100))
        time.sleep(0.02)
    uploads.tidy()
    assert len(list(links.iterdir())) == 3
    monkeypatch.setattr(guard, "MAX_KEPT_BYTES", 250)
    uploads.tidy()
    assert sorted(path.name for path in links.iterdir()) == ["recording.webm", "tmp_broken_off"]
    monkeypatch.setattr(guard, "MAX_AGE", 0)
    uploads.tidy()
    assert own.exists()
    assert not links.exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the page makes its upload folder; a picture of nobody's lies beside that."""
    found = tmp_path_factory.mktemp("machine")
    Image.new("L", (8, 8), 77).save(found / "other.png")
    return found


@pytest.fixture(scope="module")
def demo(folder, normal, tmp_path_factory):
    """Of a model with so many timesteps that an answer by all of them takes longer than any test waits, and
    so wide that a look at all normal pictures is seen under way."""
    model = tmp_path_factory.mktemp("model")
    FastDDPMPipeline(
        tiny_unet(block_out_channels=(192, 384)),
        FusedDDPMScheduler(num_train_timesteps=LONG, beta_start=1e-7, beta_end=1e-4),
    ).save_pretrained(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setenv("GRADIO_EXAMPLES_CACHE", str(folder))
        with served(tmp_path_factory.mktemp("served"), str(model), "--normal", str(normal)) as found:
            yield found


def upload(demo, picture):
    """Returns: the path that the server gives it."""
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="mine.png"\r\n\r\n%b\r\n--x--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    return fetched(demo, "upload", body % picture.read_bytes(), kind)[0]


def fetched(demo, route, body=None, headers=None):
    request = urllib.request.Request(f"{demo.url}/gradio_api/{route}", body, headers or {})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def file_of(path, **more):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}, **more}


@contextmanager
def asked(demo, tab, picture, session=None, **others):
    """A question of a tab, as a page sends it, with other values of the dials named. At the end of the context the page
    is closed.

    Returns: what the page is told, one after the other.
    """
    session = session or uuid.uuid4().hex
    mine = join(demo, tab, picture, session, **others)
    with urllib.request.urlopen(f"{demo.url}/gradio_api/queue/data?session_hash={session}", timeout=PATIENCE) as lines:
        told = (json.loads(line[5:]) for line in lines if line.startswith(b"data:"))
        yield (message for message in told if message.get("event_id") == mine)


def join(demo, tab, picture, session, **others):
    """Returns: the number of a question, whose answer nobody reads yet."""
    parts, _ = page_of(demo)
    names = {props.get("elem_id"): key for key, props in parts.items()}
    question = with_input(demo, names[f"{tab}-picture"])
    values = {f"{tab}-picture": picture, **{f"{tab}-{name}": value for name, value in others.items()}}
    data = [values.get(parts[key].get("elem_id"), parts[key].get("value")) for key in question["inputs"]]
    body = json.dumps({"fn_index": question["id"], "data": data, "session_hash": session}).encode()
    return fetched(demo, "queue/join", body, {"Content-Type": "application/json"})["event_id"]


def page_of(demo):
    """Returns: the parts of the page by their number, and all questions."""
    with urllib.request.urlopen(f"{demo.url}/config", timeout=PATIENCE) as answer:
        config = json.load(answer)
    return {part["id"]: part["props"] for part in config["components"]}, config["dependencies"]


def with_input(demo, part):
    return next(question for question in page_of(demo)[1] if part in question["inputs"])


def press_stop(demo, tab, session):
    parts, questions = page_of(demo)
    button = next(key for key, props in parts.items() if props.get("elem_id") == f"{tab}-stop")
    question = next(question for question in questions if [button, "click"] in question["targets"])
    body = {"fn_index": question["id"], "data": [], "session_hash": session}
    fetched(demo, "queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"})


def ask(demo, picture, tab="vary", **others):
    """Returns: the answer, as the page gets it."""
    with asked(demo, tab, picture, **others) as told:
        return answer_in(told)


def answer_in(told):
    return next(message["output"] for message in told if message["msg"] == "process_completed")


def progress_in(told):
    """The next steps done and in all."""
    found = next(message for message in told if message["msg"] == "progress")["progress_data"][0]
    return found["index"], found["length"]


ENDLESS = {"count": 16, "dial": LONG, "steps": LONG}


def assert_refused(answer, reason=guard.NOT_UPLOADED):
    assert answer["error"] == reason
    assert "data" not in answer


@needs_gradio()
def test_an_uploaded_picture_is_answered(demo, picture):
    given = ask(demo, file_of(upload(demo, picture)))["data"][0]["path"]
    assert np.array_equal(np.asarray(Image.open(given).convert("L")), np.asarray(Image.open(picture)))


@needs_gradio()
@pytest.mark.parametrize("as_more", [{}, {"is_stream": True}, {"url": "/gradio_api/file=mine.png"}], ids=str)
def test_files_that_were_not_uploaded_are_refused(demo, folder, picture, as_more):
    other, uploads = folder / "other.png", Path(upload(demo, picture)).parents[1]
    link, loop = uploads / "link.png", uploads / "loop.png"
    for path, target in ((link, other), (loop, loop), (uploads / "up", folder)):
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    for path in (
        other, link, uploads / "up" / "other.png", uploads / ".." / "other.png", os.path.relpath(other), folder,
        uploads, f"file://{other}", "a\0b", "",
    ):  # fmt: skip
        assert_refused(ask(demo, file_of(path, **as_more)))
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetched(demo, f"file={urllib.parse.quote(str(path))}")
    for address in ("http://example.com/a.png", "https://example.com/a.png", "ftp://example.com/a.png"):
        assert_refused(ask(demo, file_of(address, **as_more)))
    assert demo.others_asked == ""
    assert "Traceback" not in demo.output.read_text()


@needs_gradio()
def test_a_picture_that_was_tidied_away_is_told_as_that(demo, picture):
    mine = upload(demo, picture)
    Path(mine).unlink()
    answer = ask(demo, file_of(mine))
    assert_refused(answer, "the picture is no longer here: pictures are tidied away after an hour; drop it again")
    assert "Errno" not in demo.output.read_text()
    assert "Traceback" not in demo.output.read_text()


@needs_gradio()
def test_a_file_in_place_of_a_number_or_within_another_is_refused(demo, folder, picture):
    mine, other = file_of(upload(demo, picture)), file_of(folder / "other.png")
    for dial in ("dial", "count", "seed", "class", "steps"):
        assert_refused(ask(demo, mine, **{dial: other}))
        assert_refused(ask(demo, mine, **{dial: [{"deep": [other]}]}))
    assert_refused(ask(demo, {**mine, "meta": {**mine["meta"], "more": other}}))
    assert_refused(ask(demo, {"path": 7}))
    assert [path.name for path in folder.rglob("other.png")] == ["other.png"]  # none was copied


@needs_gradio()
def test_a_computation_ends_with_its_page(demo, picture):
    mine = file_of(upload(demo, picture))
    with asked(demo, "vary", mine, **ENDLESS) as told:
        assert progress_in(told)[1] == LONG
    assert "data" in ask(demo, mine, dial=0)


@needs_gradio()
def test_stop_ends_the_computation_of_its_own_page_and_tab(demo, picture):
    mine, session = file_of(upload(demo, picture)), uuid.uuid4().hex
    with asked(demo, "vary", mine, session, **ENDLESS) as told:
        done, _ = progress_in(told)
        press_stop(demo, "vary", "another")
        press_stop(demo, "anomaly", session)
        assert progress_in(told)[0] > done
        press_stop(demo, "vary", session)
        assert answer_in(told)["data"][3] == "**Stopped**"
    assert "data" in ask(demo, mine, dial=0)


@needs_gradio()
def test_the_anomaly_tab_judges_a_picture_by_the_normal_ones(demo, picture):
    mine = file_of(upload(demo, picture))
    first, later = (ask(demo, mine, "anomaly")["data"][3] for _ in range(2))
    assert "score" in first
    assert first == later


@needs_gradio()
@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://example.com"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
     {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://127.0.0.1:1"}],
    ids=str,
)  # fmt: skip
def test_other_sites_may_post_nothing(demo, headers):
    for route in ("upload", "queue/join", "run/predict"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            fetched(demo, route, b"{}", headers)
    assert status_of(demo, "upload", b"", {"Origin": demo.url, "Sec-Fetch-Site": "same-origin"}) == 400


def status_of(demo, route, body=None, headers=None):
    try:
        fetched(demo, route, body, headers)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


@needs_gradio()
def test_there_are_no_routes_but_those_of_the_page(demo):
    for route in (
        "proxy=http://example.com/", "file=http://example.com/a.png", "info", "openapi.json", "reset", "cancel",
        "call/x", "process_recording", "vibe-edit", "component_server", "run/other", "file/a.png",
        "startup-events", "stream/a",
    ):  # fmt: skip
        assert status_of(demo, route) == 404, route
        assert status_of(demo, route, b"{}", {"Content-Type": "application/json"}) == 404, route
    assert demo.others_asked == ""


@needs_gradio()
def test_an_answer_is_had_through_the_queue_only(demo, picture):
    parts, _ = page_of(demo)
    button = next(key for key, props in parts.items() if props.get("elem_id") == "vary-picture")
    body = json.dumps({"fn_index": with_input(demo, button)["id"], "data": [], "session_hash": "x"}).encode()
    assert status_of(demo, "run/predict", body, {"Content-Type": "application/json"}) == 404


@needs_gradio()
def test_a_question_that_waits_is_told_its_place(demo, picture):
    mine = file_of(upload(demo, picture))
    with asked(demo, "vary", mine, **ENDLESS) as told:
        progress_in(told)
        with asked(demo, "vary", mine, dial=0) as first, asked(demo, "vary", mine, dial=0) as second:
            places = [next(each for each in which if each["msg"] == "estimation")["rank"] for which in (first, second)]
    assert places == [0, 1]


@needs_gradio()
def test_a_short_question_does_not_wait_behind_abandoned_ones(demo, picture):
    mine, session = file_of(upload(demo, picture)), uuid.uuid4().hex
    for number in range(20):  # half of them closed, of half nobody ever read the answer; some of one page
        join(demo, "vary", mine, uuid.uuid4().hex if number % 4 else session, **ENDLESS)
        if number % 2:
            with asked(demo, "vary", mine, **ENDLESS):
                pass
    began = time.monotonic()
    assert "data" in ask(demo, mine, dial=0)
    assert time.monotonic() - began < 2


@pytest.mark.slow
@needs_gradio()
def test_32_pages_at_once_are_all_answered_in_constant_memory(demo, picture):
    """DEMO_LOAD_SECONDS=300 for as long as docs/log.md tells."""
    seconds = float(os.environ.get("DEMO_LOAD_SECONDS", "20"))
    mine, server = file_of(upload(demo, picture)), psutil.Process(demo.process.pid)
    end = time.monotonic() + 1.2 * seconds

    def reads(client):
        """Returns: the answers, and the questions that were given up."""
        answers, given_up = 0, 0
        while time.monotonic() < end:
            if client % 4 == 0:
                with asked(demo, "vary", mine, **ENDLESS) as told:
                    next(told)
                    given_up += 1
            else:
                assert "data" in ask(demo, mine, dial=20 * (client % 2), steps=20, seed=answers)
                answers += 1
        return answers, given_up

    with ThreadPoolExecutor(32) as pool:
        counts = [pool.submit(reads, client) for client in range(32)]
        mib = []
        for _ in range(6):  # the first fifth of the time warms it up
            time.sleep(0.2 * seconds)
            mib.append(server.memory_info().rss / 2**20)
        answers, given_up = map(sum, zip(*(count.result() for count in counts), strict=True))
    print(f"{answers} answers, {given_up} given up; MiB: {', '.join(f'{each:.0f}' for each in mib)}")
    assert answers > 32
    assert given_up > 8
    assert mib[-1] < 1.05 * mib[0]
    began = time.monotonic()
    assert "data" in ask(demo, mine, dial=0)
    assert time.monotonic() - began < 2


@needs_gradio()
def test_sigterm_ends_what_is_computed_and_leaves_no_pictures(demo, folder, picture):
    with asked(demo, "vary", file_of(upload(demo, picture)), **ENDLESS) as told:
        progress_in(told)
        assert list(folder.glob("fastddpm-demo-*/*"))
        demo.process.terminate()
        assert demo.process.wait(PATIENCE) == 143
    assert not list(folder.glob("fastddpm-demo-*"))
    assert "Traceback" not in demo.output.read_text()


@pytest.mark.slow
@needs_gradio()
def test_another_host_is_warned_of_and_reached(run_folder, tmp_path):
    with served(tmp_path, str(run_folder), "--host", "0.0.0.0") as demo:
        assert "warning: 0.0.0.0 is not loopback: anyone who reaches this machine can use the page" in (
            demo.output.read_text()
        )
        for address in ("127.0.0.1", *other_addresses()):
            socket.create_connection((address, demo.port), timeout=5).close()
