"""A run that is watched from outside: status.json, Kubeflow's endpoint, and what the exit code says."""

import json
import shutil
import ssl
import subprocess
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from fastddpm.training import status as status_module
from tests.training.runs import once_in_step, some_images, start, start_each, train_here


def read(folder):
    return json.loads((folder / "status.json").read_text())


@pytest.fixture
def images(tmp_path):
    return some_images(tmp_path / "images")


@pytest.fixture
def written(monkeypatch):
    """Every status that a run in this process writes, one after each step."""
    seen = []

    def write_json(path, value):
        seen.append(value)
        status_module_write(path, value)

    status_module_write = status_module.write_json
    monkeypatch.setattr(status_module, "write_json", write_json)
    return seen


def test_a_finished_run_says_so_with_its_last_losses(tmp_path, images):
    folder = train_here(tmp_path / "run", images)
    found = read(folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    newest = {key: value for row in rows for key, value in row.items()}
    assert found["state"] == "finished"
    assert (found["percent"], found["seconds_left"], found["step"], found["images_seen"]) == (100, 0, 20, 160)
    assert found["images_per_second"] > 0
    assert found["losses"] == {name: newest[name] for name in ("loss", "train_set_loss", "held_out_loss")}
    assert abs((datetime.now().astimezone() - datetime.fromisoformat(found["updated"])).total_seconds()) < 60


def test_it_is_written_at_most_every_ten_seconds_and_at_each_end(tmp_path, images, written, monkeypatch):
    assert status_module.SECONDS_BETWEEN == 10
    train_here(tmp_path / "run", images)
    assert [found["state"] for found in written] == ["training", "drawing", "finished"]
    written.clear()
    monkeypatch.setattr(status_module, "SECONDS_BETWEEN", 0)
    train_here(tmp_path / "each step", images)
    steps = [(found["state"], found["step"]) for found in written]
    assert steps == [("training", step) for step in range(21)] + [("drawing", 20), ("finished", 20)]
    halfway = written[10]
    assert (halfway["percent"], halfway["num_steps"]) == (50, 20)
    assert halfway["seconds_left"] == pytest.approx(80 / halfway["images_per_second"], abs=1)
    assert halfway["losses"]["loss"] > 0


def test_a_run_that_breaks_off_says_that_it_failed(tmp_path, images):
    with pytest.raises(RuntimeError, match="in the middle"):
        train_here(tmp_path / "run", images, fail_at=7)
    assert (read(tmp_path / "run")["state"], read(tmp_path / "run")["step"]) == ("failed", 7)


def test_codes_tell_a_launcher_what_to_do(tmp_path, images):
    """0: done; 143: stopped, and goes on; 2: refused."""
    folder = tmp_path / "run"
    asked = once_in_step(12, "os.kill(os.getpid(), signal.SIGTERM)", flag=tmp_path / "flag")
    stopped = start(folder, images, before=asked)
    assert (stopped.returncode, read(folder)["state"], read(folder)["step"]) == (143, "stopped", 13)
    again = start(folder, images)
    assert (again.returncode, read(folder)["state"]) == (0, "finished")
    assert start(folder, images, **{"train.learning_rate": "0.5"}).returncode == 2


@pytest.mark.slow
def test_who_lost_another_rank_ends_with_75(tmp_path, images):
    died = once_in_step(12, "os._exit(1)", flag=tmp_path / "flag", rank=1)
    survivor, lost = start_each(tmp_path / "run", images, processes=2, before=died)
    assert (survivor.returncode, lost.returncode) == (75, 1), survivor.stderr
    assert read(tmp_path / "run")["state"] == "failed"
    assert "started again, the run goes on from its last checkpoint" in survivor.stderr


class Kubeflow(BaseHTTPRequestHandler):
    """The status endpoint: path and body of each POST with the right token."""

    told, answer = [], 200

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] == "Bearer secret":
            self.told.append((self.path, body))
        self.send_response(self.answer)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def kubeflow(tmp_path, monkeypatch):
    """The endpoint on loopback, with TLS by a certificate of its own, and its variables set."""
    if shutil.which("openssl") is None:
        pytest.skip("a certificate needs openssl")
    key, certificate, token = (tmp_path / name for name in ("key.pem", "ca.crt", "token"))
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-keyout", key, "-out", certificate]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True)
    token.write_text("secret\n")
    server = HTTPServer(("127.0.0.1", 0), Kubeflow)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(Kubeflow, "told", [])
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", f"https://localhost:{server.server_port}/trainjobs/mine/status")
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_CA_CERT", str(certificate))
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_TOKEN", str(token))
    yield Kubeflow
    server.shutdown()
    server.server_close()


def test_kubeflow_is_told_the_same(tmp_path, images, kubeflow):
    folder = train_here(tmp_path / "run", images)
    path, last = kubeflow.told[-1]
    found = read(folder)
    assert path == "/trainjobs/mine/status"
    assert last == {
        "trainerStatus": {
            "progressPercentage": 100,
            "estimatedRemainingSeconds": 0,
            "metrics": [{"name": name, "value": str(value)} for name, value in found["losses"].items()],
            "lastUpdatedTime": found["updated"],
        }
    }
    assert kubeflow.told[0][1]["trainerStatus"]["progressPercentage"] == 0
    assert "secret" not in (folder / "status.json").read_text()


def test_a_kubeflow_that_refuses_stops_no_run_and_is_told_once(tmp_path, images, kubeflow, monkeypatch, capsys):
    monkeypatch.setattr(kubeflow, "answer", 403)
    train_here(tmp_path / "run", images)
    assert read(tmp_path / "run")["state"] == "finished"
    said = capsys.readouterr()
    assert (said.out + said.err).count("Kubeflow is not told how far the run is: <HTTPError 403") == 1
