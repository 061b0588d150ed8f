"""A pushed run loads over HTTP in every way that its card promises (measured with diffusers 0.42.1).

Fresh processes with an empty Hugging Face home; in some of them fastddpm cannot be imported.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, hub
from fastddpm.schedulers.named import scheduler_named
from fastddpm.verbs.sample.request import SampleRequest
from fastddpm.verbs.sample.samples import sample
from tests.conftest import stock_unet, tiny_unet
from tests.hub import looking
from tests.hub.conftest import USERS, talk_to
from tests.hub.server import TestHub

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WITH = "import fastddpm\nfrom tests.hub.looking import *\n"
WITHOUT = 'import sys; sys.modules["fastddpm"] = None\nfrom tests.hub.looking import *\n'


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("loading")


@pytest.fixture(scope="module")
def folders(trained, root):
    """Four kinds: a real run, our U-Net with classes, diffusers' own, and diffusers' own with classes."""
    solver = scheduler_named("unipc", FusedDDPMScheduler(num_train_timesteps=20, beta_end=0.5))
    guided = {"guidance_scale": 1.5, "num_inference_steps": 4}
    FastDDPMPipeline(tiny_unet(num_class_embeds=4), solver, **guided).save_pretrained(root / "classes")
    FastDDPMPipeline(stock_unet(), solver, num_inference_steps=4).save_pretrained(root / "stock")
    FastDDPMPipeline(stock_unet(num_class_embeds=4), solver, 3, **guided).save_pretrained(root / "labelled")
    return {"paper": trained, **{name: root / name for name in ("classes", "stock", "labelled")}}


@pytest.fixture(scope="module")
def server(folders, root):
    """The four, each under its name; `ann/many` was one thing first (also v1) and is another now; `ann/secret`."""
    with TestHub(users=USERS) as server, pytest.MonkeyPatch.context() as patch:
        talk_to(server, root / "pushing", patch)
        for name, folder in folders.items():
            hub.push(folder, f"ann/{name}")
        hub.push(folders["classes"], "ann/many")
        hub.push(folders["classes"], "ann/many", revision="v1")
        hub.push(folders["paper"], "ann/many")
        hub.push(folders["paper"], "ann/secret", private=True)
        yield server


@pytest.fixture(scope="module")
def local(folders):
    """What the local folders hold and draw, with our pipeline."""
    for name, folder in folders.items():
        looking.look(name, looking.load(str(folder), FastDDPMPipeline))
    return looking.found


def told(code: str, env: dict[str, str]) -> dict:
    """What a fresh process found; it runs where `tests` can be imported, and fastddpm too, unless the code forbids."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\ntell()"],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


WITH_CODE = (
    WITH
    + """
import sys
from fastddpm import CutMixPipeline, FastDDPMPipeline, PaperUNet2DModel, VariationPipeline
for name in ("paper", "classes", "stock", "labelled"):
    look(f"{name}, plain", load(f"ann/{name}"))
    look(f"{name}, ours", load(f"ann/{name}", FastDDPMPipeline))
for kind in (VariationPipeline, CutMixPipeline):
    for name in ("paper", "labelled"):
        pipe = load(f"ann/{name}", kind)
        found[f"{name}, {kind.__name__}"] = [type(pipe).__name__, digest(pipe.unet)]
pictures = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
look("v1", load("ann/many", FastDDPMPipeline, revision="v1"))
look("main", load("ann/many", revision="main"))
look("secret", load("ann/secret"))
found["unet alone"] = digest(PaperUNet2DModel.from_pretrained("ann/paper", subfolder="unet"))
import diffusers
for kind in ("DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"):
    scheduler = getattr(diffusers, kind).from_pretrained("ann/paper", subfolder="scheduler")
    found[kind] = [scheduler.config.num_train_timesteps, scheduler.config.timestep_spacing, scheduler.config.beta_end]
    pipe = load("ann/paper", FastDDPMPipeline)
    pipe.scheduler = scheduler
    look(f"{kind}, drawn", pipe)
found["code of a repository was run"] = "diffusers_modules" in sys.modules
"""
)


@pytest.fixture(scope="module")
def with_package(server, root):
    code = """
refused("no such repository", load, "ann/none", FastDDPMPipeline)
for name in ("paper", "classes", "stock", "labelled"):
    load(f"ann/{name}", FastDDPMPipeline).save_pretrained(f"{again}/{name}")
    look(f"{name}, again", load(f"{again}/{name}", FastDDPMPipeline))
load("ann/paper").save_pretrained(f"{again}/plain")
look("plain, again", load(f"{again}/plain"))
"""
    env = server.env(root / "with-home", "hf_ann_read")
    return told(f"{WITH_CODE}\nagain = {str(root / 'with-again')!r}\n{code}", env)


@pytest.fixture(scope="module")
def without_package(server, root):
    code = """
refused("secret, no token", load, "ann/secret", trust_remote_code=True)
refused("paper, plain", load, "ann/paper")
refused("labelled, plain", load, "ann/labelled")
look("stock, plain", load("ann/stock"))
trusted = {"trust_remote_code": True}
for name in ("paper", "classes"):
    look(f"{name}, trusted", load(f"ann/{name}", **trusted))
own = load("ann/classes", **trusted)
look("classes, any class", own, class_labels="none")
look("classes, a class", own, class_labels=[0, 2])
look("classes, guided", own, class_labels=[0, 2], guidance_scale=3.0)
look("labelled, trusted", load("ann/labelled", **trusted))
look("v1", load("ann/many", revision="v1", **trusted))
look("main", load("ann/many", **trusted))
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
for kind in (DDIMScheduler, DPMSolverMultistepScheduler):
    pipe = load("ann/paper", **trusted)
    pipe.scheduler = kind.from_pretrained("ann/paper", subfolder="scheduler")
    look(f"{kind.__name__}, drawn", pipe)
from huggingface_hub import snapshot_download
for name in ("paper", "labelled"):
    snapshot_download(f"ann/{name}")  # all of it, for the test without a network
for name in ("paper", "labelled", "stock"):
    load(f"ann/{name}", **trusted).save_pretrained(f"{again}/{name}")
    look(f"{name}, again", load(f"{again}/{name}", **trusted))
"""
    again = f"again = {str(root / 'without-again')!r}\n"
    return told(WITHOUT + again + code, server.env(root / "without-home"))


def same(one: dict, other: dict) -> bool:
    """The same weights, bit for bit, and the same images."""
    return one["weights"] == other["weights"] and one["images"] == other["images"]


def alike(one: dict, other: dict) -> bool:
    """The same weights, and images within one level of 255: of two implementations of the same step."""
    pictures = [np.array(each["images"]) * 255 for each in (one, other)]
    assert pictures[0].std() > 5, "an empty picture would prove nothing"
    return one["weights"] == other["weights"] and np.abs(pictures[0] - pictures[1]).max() <= 1


def test_with_the_package_plain_diffusers_draws_the_runs_best_without_a_flag(with_package, local):
    for name, unet in [("paper", "PaperUNet2DModel"), ("classes", "PaperUNet2DModel"), ("labelled", "UNet2DModel")]:
        plain = with_package[f"{name}, plain"]
        assert [plain[part] for part in ("pipeline", "unet")] == ["FastDDPMPipeline", unet]
        assert plain["scheduler"] == local[name]["scheduler"]
        assert same(plain, local[name])


def test_our_pipelines_load_all_kinds_without_running_their_code(with_package, local):
    for name in ("paper", "classes", "stock", "labelled"):
        ours = with_package[f"{name}, ours"]
        assert ours["pipeline"] == "FastDDPMPipeline"
        assert ours["scheduler"] == ("FusedDDPMScheduler" if name == "paper" else "UniPCMultistepScheduler")
        assert same(ours, local[name])
    for kind in ("VariationPipeline", "CutMixPipeline"):
        for name in ("paper", "labelled"):
            assert with_package[f"{name}, {kind}"] == [kind, local[name]["weights"]]
    assert with_package["code of a repository was run"] is False


def test_revision_chooses_the_weights(with_package, without_package, local):
    assert same(with_package["v1"], local["classes"])
    assert alike(without_package["v1"], local["classes"])
    for found in (with_package, without_package):
        assert alike(found["main"], local["paper"])


def test_private_run_takes_the_token(with_package, without_package, local):
    assert alike(with_package["secret"], local["paper"])
    assert "ann/secret" in without_package["secret, no token"]


def test_what_is_not_there_is_one_line(with_package):
    said = with_package["no such repository"]
    assert said == (
        "OSError: ann/none is no folder here, and cannot be had from the Hub: check the name; a private one wants a "
        "token, as `hf auth login` keeps it"
    )


def test_parts_load_alone(with_package, without_package, local):
    assert with_package["unet alone"] == local["paper"]["weights"]
    for kind in ("DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"):
        assert with_package[kind] == [20, "trailing", 0.5]
        assert with_package[f"{kind}, drawn"]["scheduler"] == kind
    for kind in ("DDIMScheduler", "DPMSolverMultistepScheduler"):
        assert alike(without_package[f"{kind}, drawn"], with_package[f"{kind}, drawn"])
        assert not alike(with_package[f"{kind}, drawn"], local["paper"])


def test_without_the_package_code_needs_the_users_flag(without_package):
    for case in ("paper, plain", "labelled, plain"):
        assert "trust_remote_code=True" in without_package[case], case


def test_without_the_package_it_draws_the_runs_best_when_trusted(without_package, local):
    for name, unet in [("paper", "PaperUNet2DModel"), ("classes", "PaperUNet2DModel"), ("labelled", "UNet2DModel")]:
        trusted = without_package[f"{name}, trusted"]
        assert (trusted["pipeline"], trusted["unet"]) == ("FastDDPMPipeline", unet)
        assert alike(trusted, local[name])


def test_the_repositorys_pipeline_knows_labels_and_guidance(without_package):
    by_class = without_package["classes, a class"]
    assert not alike(by_class, without_package["classes, any class"])
    assert not alike(by_class, without_package["classes, guided"])


def test_a_stock_unet_needs_neither_flag_nor_package(without_package, with_package, local, server):
    stock = without_package["stock, plain"]
    assert [stock[part] for part in ("pipeline", "unet", "scheduler")] == [
        "DDPMPipeline",
        "UNet2DModel",
        "DDPMScheduler",
    ]
    assert alike(stock, with_package["stock, plain"])
    assert stock["weights"] == local["stock"]["weights"]
    assert not [name for name in server.files("ann/stock") if name.endswith(".py")]


def test_saved_again_it_loads_again(with_package, without_package, local):
    for name in ("paper", "classes", "stock", "labelled"):
        assert same(with_package[f"{name}, again"], local[name])
    assert same(with_package["plain, again"], with_package["paper, plain"])
    for name, before in (("paper", "trusted"), ("labelled", "trusted"), ("stock", "plain")):
        again = without_package[f"{name}, again"]
        assert same(again, without_package[f"{name}, {before}"])
        assert again["pipeline"] == without_package[f"{name}, {before}"]["pipeline"]


def test_offline_the_cache_serves_the_same(with_package, server, root):
    num_requests = len(server.requests)
    env = {**server.env(root / "with-home", "hf_ann_read"), "HF_HUB_OFFLINE": "1"}
    offline = told(WITH_CODE, env)
    assert len(server.requests) == num_requests
    assert len([name for name, found in offline.items() if isinstance(found, dict)]) > 12
    for name, found in offline.items():
        assert found == with_package[name], name


def test_offline_without_the_package_the_cache_serves_the_same(without_package, server, root):
    """Where `pipeline.py` runs, diffusers asks the Hub of an id even so; not of the folder of `hf download`."""
    code = """
from huggingface_hub import snapshot_download
trusted = {"trust_remote_code": True}
look("stock, plain", load("ann/stock"))
refused("an id", load, "ann/paper", **trusted)
look("paper, trusted", load(snapshot_download("ann/paper"), **trusted))
look("labelled, trusted", load(snapshot_download("ann/labelled"), **trusted))
"""
    num_requests = len(server.requests)
    offline = told(WITHOUT + code, {**server.env(root / "without-home"), "HF_HUB_OFFLINE": "1"})
    assert len(server.requests) == num_requests
    assert offline.pop("an id").startswith("OfflineModeIsEnabled")
    for name, found in offline.items():
        assert same(found, without_package[name]), name


def test_sample_command_takes_an_id(server, folders, tmp_path):
    words = ["--num_images", "4", "--num_inference_steps", "3", "--out"]
    done = subprocess.run(
        [sys.executable, "-m", "fastddpm", "sample", "ann/labelled", *words, str(tmp_path / "of-the-hub.png")],
        env=server.env(tmp_path / "home"), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sample(
        SampleRequest(model=str(folders["labelled"]), out=tmp_path / "local.png", num_images=4, num_inference_steps=3)
    )
    pictures = [np.asarray(Image.open(tmp_path / name)) for name in ("of-the-hub.png", "local.png")]
    assert np.array_equal(*pictures)
