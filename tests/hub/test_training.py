"""Training that pushes while it goes on: what arrives when, and that training does not notice."""

import shutil
import subprocess
import sys
import threading
import time

import pytest
import torch

from tests.hub.conftest import train_there, train_words, writes
from tests.training.runs import final_tensors, free_port, metrics, train_here

pytestmark = pytest.mark.slow

SLOWLY = """
import time
from fastddpm.training import loop
original = loop.train_step
def train_step(run):
    time.sleep(0.1)
    return original(run)
loop.train_step = train_step
"""
"""steps of a tenth of a second: a push of a few takes as long"""
PUSHING = {"push_to_hub": "ann/model", "hub.every_images": "40", "watch.preview_every_images": "80"}
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def test_pushes_while_it_trains_and_at_the_end(hub, images, trained, tmp_path):
    """And the weights are those of the same run without, bit for bit."""
    settings = {**PUSHING, "hub.private": "true", "hub.license": "mit"}
    done = train_there(hub.env(tmp_path / "home", "hf_ann"), tmp_path / "run", images, SLOWLY, **settings)
    assert done.returncode == 0, done.stderr
    titles = [commit.title for commit in reversed(hub.commits("ann/model"))]
    assert titles[0] == "initial commit"
    assert titles[-1] == "After 160 images, the end of training"
    during = [title for title in titles if title in ("After 40 images", "After 80 images", "After 120 images")]
    assert during == titles[1:-1]
    assert during
    assert done.stdout.splitlines()[-1] == f"{hub.url}/ann/model: pushed"
    assert hub.repo("ann/model").is_private
    assert hub.files("ann/model")[WEIGHTS] == (tmp_path / "run" / WEIGHTS).read_bytes()
    card = hub.files("ann/model")["README.md"].decode()
    assert "license: mit" in card
    assert "| images seen | 160 |" in card
    first = hub.commits("ann/model")[-2]
    assert f"| images seen | {first.title.split()[1]} |" in first.files["README.md"].content.decode()
    assert first.files[WEIGHTS].content != hub.files("ann/model")[WEIGHTS]
    for commit in hub.commits("ann/model"):
        assert {name.partition("/")[0] for name in commit.files} <= {
            ".gitattributes", "README.md", "denoising.png", "model_index.json", "pipeline.py", "samples.png",
            "scheduler", "unet",
        }  # fmt: skip
    assert not (tmp_path / "run" / ".push").exists()
    plain = final_tensors(trained)
    pushed = final_tensors(tmp_path / "run")
    assert plain.keys() == pushed.keys()
    assert all(torch.equal(tensor, pushed[name]) for name, tensor in plain.items())
    assert metrics(tmp_path / "run") == metrics(trained)


def test_a_preview_that_is_a_link_out_of_the_run_is_not_pushed(signed_in, images, tmp_path, capsys):
    (tmp_path / "beside.png").write_bytes(b"not for the Hub")
    (tmp_path / "run" / "previews").mkdir(parents=True)
    (tmp_path / "run" / "previews" / "000000000000.png").symlink_to(tmp_path / "beside.png")
    train_here(tmp_path / "run", images, **PUSHING)
    said = "warning: a push failed, training goes on: 'previews/000000000000.png' is a link out of"
    assert said in capsys.readouterr().out
    assert signed_in.commits("ann/model")[0].title == "After 160 images, the end of training"
    for commit in signed_in.commits("ann/model"):
        assert b"not for the Hub" not in [file.content for file in commit.files.values()]


def test_a_hub_that_refuses_uploads_does_not_stop_training(hub, images, trained, tmp_path):
    hub.reject("/objects/batch", status=403)
    settings = {**PUSHING, "hub.private": "true", "hub.revision": "v1", "hub.license": "mit"}
    done = train_there(hub.env(tmp_path / "home", "hf_ann"), tmp_path / "run", images, SLOWLY, **settings)
    assert done.returncode == 2
    assert "warning: a push failed, training goes on: this token may not write to ann/model (" in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    command = f"fastddpm push {tmp_path / 'run'} ann/model --private --revision v1 --license mit"
    assert last.startswith(f"fastddpm: error: the run in {tmp_path / 'run'} is whole, but was not pushed: this token")
    assert last.endswith(f"; then: {command}")
    assert "Traceback" not in done.stderr
    plain, pushed = final_tensors(trained), final_tensors(tmp_path / "run")
    assert all(torch.equal(tensor, pushed[name]) for name, tensor in plain.items())
    assert len(hub.commits("ann/model")) == 1
    hub.heal()
    words = [sys.executable, "-m", *command.split()]
    later = subprocess.run(
        words, env=hub.env(tmp_path / "home", "hf_ann"), capture_output=True, text=True, timeout=120, check=False
    )
    assert later.returncode == 0, later.stderr
    assert hub.files("ann/model", "v1")[WEIGHTS] == (tmp_path / "run" / WEIGHTS).read_bytes()
    assert hub.repo("ann/model").is_private


def test_a_hub_that_comes_back_gets_the_end(signed_in, images, tmp_path, capsys):
    signed_in.reject("/objects/batch", status=403, method="POST", times=1)
    settings = {**PUSHING, "hub.every_images": "80"}
    folder = train_here(tmp_path / "run", images, **settings)
    assert signed_in.commits("ann/model")[0].title == "After 160 images, the end of training"
    assert signed_in.files("ann/model")[WEIGHTS] == (folder / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_two_processes_end_when_the_last_push_is_refused(hub, images, tmp_path):
    hub.reject("/objects/batch", status=403)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port"]
    words = train_words(tmp_path / "run", images, push_to_hub="ann/model")
    done = subprocess.run(
        [*launcher, str(free_port()), "-m", "fastddpm", *words],
        env=hub.env(tmp_path / "home", "hf_ann"), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("was not pushed: this token may not write to ann/model (") == 1
    hub.heal()
    again = subprocess.run(
        [*launcher, str(free_port()), "-m", "fastddpm", *words],
        env=hub.env(tmp_path / "home", "hf_ann"), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("/ann/model: pushed") == 1


@pytest.mark.parametrize(
    ("token", "settings", "message"),
    [
        ("hf_nobody", {}, "the Hub does not accept the token"),
        ("hf_ann_read", {}, "may only read"),
        (None, {}, "there is no token for the Hub; set HF_TOKEN"),
        ("hf_ann", {"push_to_hub": "bob/model"}, "may not write to bob/model"),
        ("hf_ann", {"push_to_hub": "model"}, "names no owner"),
        ("hf_ann", {"hub.revision": "a..b"}, "is no name for a revision"),
    ],
)
def test_what_could_not_be_pushed_fails_before_training(
    signed_in, images, tmp_path, monkeypatch, token, settings, message
):
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ValueError, match=message):
        train_here(tmp_path / "run", images, **{**PUSHING, **settings})
    assert not writes(signed_in)
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or not (tmp_path / "run" / "metrics.jsonl").read_text()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_finished_run_that_is_started_again_is_up_to_date(signed_in, images, trained, tmp_path, capsys):
    folder = shutil.copytree(trained, tmp_path / "run")
    for _ in range(2):
        train_here(folder, images, **{"watch.preview_every_images": "80", "push_to_hub": "ann/model"})
    assert capsys.readouterr().out.splitlines()[-1] == f"{signed_in.url}/ann/model: was up to date"
    assert len(signed_in.commits("ann/model")) == 2


def test_a_push_that_is_due_while_another_is_under_way_is_left_out(signed_in, images, tmp_path, capsys, monkeypatch):
    """The Hub answers late; training ends in the meantime, and waits at its end only."""
    gate, answer = threading.Event(), signed_in.faults.rejection
    monkeypatch.setattr(signed_in.faults, "rejection", lambda *call: _late(gate, answer, *call))
    threading.Thread(target=lambda: (time.sleep(4), gate.set()), daemon=True).start()
    train_here(tmp_path / "run", images, **PUSHING)
    said = capsys.readouterr().out
    assert "no push at 80 images: the one before is still under way" in said
    assert [commit.title for commit in signed_in.commits("ann/model")][:2] == [
        "After 160 images, the end of training", "After 40 images",
    ]  # fmt: skip


def _late(gate, answer, method, path):
    if "preupload" in path:
        gate.wait(60)
    return answer(method, path)
