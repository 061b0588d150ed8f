"""Nothing of a repository runs without the user's flag (F27), and a token is left nowhere (F28)."""

import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler
from fastddpm.hub import push
from tests.conftest import stock_unet
from tests.hub.conftest import run_python, train_there, train_words
from tests.hub.repos import File
from tests.hub.server import TestHub

pytestmark = pytest.mark.slow

EVIL = """
import os
with open(os.environ["SENTINEL"], "a") as file:
    file.write(__name__)
"""
CANARY = "hf_canary0123456789"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def change(hub: TestHub, name: str, changed: dict[str, bytes | None]) -> None:
    """Commit other files, past every check; None: remove it."""
    repo = hub.repo(f"ann/{name}")
    files = {path: file for path, file in repo.at("main").files.items() if path not in changed}
    files |= {path: File(content, path.endswith(".safetensors")) for path, content in changed.items() if content}
    repo.lfs_objects |= {file.sha256: file.content for file in files.values() if file.is_lfs}
    repo.add_commit("main", files, title="evil", author="ann")


def index_with(hub: TestHub, name: str, **changed: object) -> bytes:
    return json.dumps({**json.loads(hub.files(f"ann/{name}")["model_index.json"]), **changed}).encode()


@pytest.fixture
def bad(signed_in, trained, tmp_path):
    """Repositories whose code writes a file where it runs, under four kinds of index."""
    labelled = FastDDPMPipeline(stock_unet(num_class_embeds=4), FusedDDPMScheduler(20, beta_end=0.5), null_class=3)
    labelled.save_pretrained(tmp_path / "labelled")
    for name in ("ours", "labelled", "part", "custom"):
        push(tmp_path / "labelled" if name == "labelled" else trained, f"ann/{name}")
        code = dict.fromkeys(("pipeline.py", "unet/fastddpm.py", "unet/evil.py", "scheduler/evil.py"), EVIL.encode())
        change(signed_in, name, code)
    change(signed_in, "part", {"model_index.json": index_with(signed_in, "part", unet=["evil", "Evil"])})
    named = index_with(signed_in, "custom", _class_name=["pipeline", "Evil"], scheduler=["evil", "Evil"])
    change(signed_in, "custom", {"model_index.json": named})
    return signed_in


def test_f27_code_of_a_repository_never_runs_without_the_flag(bad, images, tmp_path):
    """Our pipelines, `fastddpm sample` and `model.init_from`; with the flag diffusers shows that the code works."""
    settings = {"model.init_from": "ann/ours", "train.num_images_seen": "8", "train.lr_warmup_steps": "0"}
    words = train_words(tmp_path / "run", images, **settings)
    code = f"""
import json, os
from diffusers import DiffusionPipeline
from fastddpm import CutMixPipeline, FastDDPMPipeline, PaperUNet2DModel, VariationPipeline
from fastddpm.cli import main
went = {{}}

def attempt(name, do, *arguments, **options):
    try:
        do(*arguments, **options)
        went[name] = "loaded"
    except (Exception, SystemExit) as error:
        went[name] = f"{{type(error).__name__}}: {{error}}"

for name in ("ours", "labelled", "part", "custom"):
    for kind in (FastDDPMPipeline, VariationPipeline, CutMixPipeline, DiffusionPipeline):
        attempt(f"{{name}}, {{kind.__name__}}", kind.from_pretrained, f"ann/{{name}}")
    attempt(f"{{name}}, sample", main, ["sample", f"ann/{{name}}", "--num_images", "1", "--num_inference_steps", "2",
                                        "--out", {str(tmp_path)!r} + f"/{{name}}.png"])
    attempt(f"{{name}}, unet", PaperUNet2DModel.from_pretrained, f"ann/{{name}}", subfolder="unet")
attempt("ours, init_from", main, {words!r})
went["ran"] = os.path.exists(os.environ["SENTINEL"])
attempt("allowed", DiffusionPipeline.from_pretrained, "ann/labelled", custom_pipeline="pipeline",
        trust_remote_code=True)
went["ran when allowed"] = os.path.exists(os.environ["SENTINEL"])
print(json.dumps(went))
"""
    env = {**bad.env(tmp_path / "home"), "SENTINEL": str(tmp_path / "sentinel")}
    went = json.loads(run_python(code, env))
    assert (went["ran"], went["ran when allowed"]) == (False, True)
    for name in ("ours", "labelled"):
        for how in ("FastDDPMPipeline", "VariationPipeline", "CutMixPipeline", "DiffusionPipeline", "sample"):
            assert went[f"{name}, {how}"] == "loaded", f"{name}, {how}"
    assert went["ours, init_from"] == went["ours, unet"] == "loaded"
    assert went["part, sample"] == went["custom, sample"] == "SystemExit: 2"
    for case in ("part, FastDDPMPipeline", "custom, DiffusionPipeline"):
        assert "trust_remote_code" in went[case], case


def test_f27_pickled_weights_are_refused(signed_in, trained, tmp_path):
    push(trained, "ann/pickled")
    pickled = io.BytesIO()
    torch.save(load(signed_in.files("ann/pickled")[WEIGHTS]), pickled)
    there = {WEIGHTS: None, "unet/diffusion_pytorch_model.bin": pickled.getvalue()}
    change(signed_in, "pickled", there)
    code = f"""
import json
from fastddpm import FastDDPMPipeline
from fastddpm.cli import main
said = []
try:
    FastDDPMPipeline.from_pretrained("ann/pickled")
except OSError as error:
    said.append(str(error))
for words in (["sample", "ann/pickled", "--out", {str(tmp_path / "x.png")!r}],):
    try:
        main(words)
    except SystemExit as error:
        said.append(error.code)
said.append(type(FastDDPMPipeline.from_pretrained("ann/pickled", use_safetensors=False)).__name__)
print(json.dumps(said))
"""
    refusal, exit_code, on_request = json.loads(run_python(code, signed_in.env(tmp_path / "home")))
    assert refusal == (
        "ann/pickled has no weights as safetensors, or damaged ones; copy it again, or save it with save_pretrained"
    )
    assert (exit_code, on_request) == (2, "FastDDPMPipeline")


def test_f27_names_of_files_do_not_leave_the_cache(signed_in, trained, tmp_path):
    weights = (trained / WEIGHTS).read_bytes()
    names = ["../evil", "../../../../../evil.json", "unet/../../../../../evil.safetensors", "/evil.safetensors",
             "scheduler/../../../../../evil.json", "unet/..\\..\\evil.safetensors"]  # fmt: skip
    for place, name in enumerate(names):
        push(trained, f"ann/evil{place}")
        change(signed_in, f"evil{place}", {name: weights})
    code = f"""
from fastddpm import FastDDPMPipeline
from huggingface_hub import snapshot_download
for place in range({len(names)}):
    for load in (FastDDPMPipeline.from_pretrained, snapshot_download):
        try:
            load(f"ann/evil{{place}}")
        except Exception as error:
            print(type(error).__name__, error)
print("done")
"""
    home = tmp_path / "deep" / "in" / "here" / "home"
    assert run_python(code, signed_in.env(home)) == "done"
    outside = [path for path in tmp_path.rglob("*evil*") if home / "hub" not in path.parents]
    assert not outside
    assert not Path("/evil.safetensors").exists()
    for path in (home / "hub").rglob("*evil*"):
        assert path.resolve().is_relative_to(home / "hub")


@pytest.mark.parametrize("end", ["finished", "error", pytest.param("killed", marks=pytest.mark.slow)])
def test_f28_token_is_left_nowhere(images, tmp_path, end):
    """The canary is the token that pushes, so it is in the environment, in memory and in every request."""
    with TestHub(users={"ann": {CANARY: "write"}}) as own_hub:
        fault = {
            "finished": "pass",
            "error": "raise RuntimeError('in the middle')",
            "killed": "os.kill(os.getpid(), 9)",
        }
        before = f"""
import os
from fastddpm.training import loop
original = loop.train_step
def train_step(run):
    if run.state.step == 16:
        {fault[end]}
    return original(run)
loop.train_step = train_step
"""
        folder, env = tmp_path / "runs" / "canary", own_hub.env(tmp_path / "home", CANARY)
        settings = {"push_to_hub": "ann/model", "hub.every_images": "40", "watch.preview_every_images": "80"}
        done = train_there(env, folder, images, before, **settings)
        assert (done.returncode == 0) == (end == "finished"), done.stderr
        assert ("RuntimeError: in the middle" in done.stderr) == (end == "error")
        assert CANARY not in done.stdout + done.stderr
        assert (folder / "checkpoints").is_dir()
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
        if end == "finished":
            assert "unet/config.json" in own_hub.files("ann/model")
        for repo in own_hub.store.repos.values():
            for commit in repo.commits.values():
                for name, file in commit.files.items():
                    assert CANARY.encode() not in file.content, name
