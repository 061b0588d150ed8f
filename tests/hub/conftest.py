"""A Hub for a test, and what its clients do again and again."""

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import _http
from PIL import Image

from tests.hub.server import Request, TestHub
from tests.training.runs import TINY, train_here

USERS = {"ann": {"hf_ann": "write", "hf_ann_read": "read"}, "bob": {"hf_bob": "write"}}
CARD = "---\nlicense: mit\nlibrary_name: diffusers\ntags: [ddpm]\n---\n# A model\n"


@pytest.fixture
def hub(monkeypatch):
    """A Hub, reachable from this process too: the suite is otherwise offline."""
    with TestHub(users=USERS) as hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub


@pytest.fixture
def signed_in(hub, tmp_path, monkeypatch) -> TestHub:
    """The Hub as that of this process, with a token that may write and an empty cache."""
    talk_to(hub, tmp_path, monkeypatch)
    return hub


def talk_to(hub: TestHub, home: Path, patch: pytest.MonkeyPatch) -> None:
    """What the environment does for a process of its own, for this one, which read it long ago."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    settings = {
        "HUGGINGFACE_CO_URL_TEMPLATE": template, "ENDPOINT": hub.url, "HF_HUB_CACHE": str(home / "hub-cache"),
        "HF_TOKEN_PATH": str(home / "no-token"), "HF_STORED_TOKENS_PATH": str(home / "no-tokens"),
        "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True,
    }  # fmt: skip
    for name, value in settings.items():
        patch.setattr(constants, name, value)
    patch.setenv("HF_TOKEN", "hf_ann")


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """24 grayscale 8x8 PNG images in two class folders."""
    root, rng = tmp_path_factory.mktemp("of-the-run") / "pictures", np.random.default_rng(0)
    for label, offset in (("dark", 0), ("light", 150)):
        (root / label).mkdir(parents=True)
        for i in range(12):
            pixels = (rng.integers(0, 100, (8, 8)) + offset).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def trained(images) -> Path:
    """The folder of a finished run; tests copy what they change."""
    return train_here(images.parent / "runs" / "tiny", images, **{"watch.preview_every_images": "80"})


@pytest.fixture
def no_waiting(monkeypatch):
    """The client waits seconds between its tries."""
    monkeypatch.setattr(_http, "time", types.SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "folder")


def write_folder(folder: Path) -> Path:
    """A card, a text file in a sub-folder and a large file."""
    (folder / "unet").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "unet" / "config.json").write_text('{"sample_size": 8}')
    (folder / "unet" / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(300_000))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def client(hub: TestHub, token: str | bool = "hf_ann") -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


def pushed(hub: TestHub, folder: Path, *, private: bool = False) -> HfApi:
    api = client(hub)
    api.create_repo("ann/model", private=private)
    api.upload_folder(repo_id="ann/model", folder_path=folder)
    return api


def run_python(code: str, env: dict[str, str]) -> str:
    """The last line that `code` prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def train_words(folder: Path, images: Path, **settings: str) -> list[str]:
    """Arguments of `fastddpm train` for a tiny run."""
    config = images.parent / "empty.yaml"
    config.write_text("seed: 0\n")
    places = {"out": str(folder), "data.source": str(images), "data.cache_dir": str(images.parent / "cache")}
    named = {**TINY, **places, **settings}
    return ["train", "--config", str(config), *(word for k, v in named.items() for word in (f"--{k}", v))]


def train_there(
    env: dict[str, str], folder: Path, images: Path, before: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    """`fastddpm train` in a process of its own; `before` is Python that it runs first."""
    code = f"import sys\nfrom fastddpm.cli import main\n{before}\nmain(sys.argv[1:])"
    words = [sys.executable, "-c", code, *train_words(folder, images, **settings)]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=240, check=False)


def sent(hub: TestHub, method: str, part: str) -> list[Request]:
    return [request for request in hub.requests if request.method == method and part in request.path]


def writes(hub: TestHub) -> list[str]:
    """What a client did that changes something, as "METHOD path"; the check of a card changes nothing."""
    changing = (request for request in hub.requests if request.method in ("POST", "PUT", "DELETE"))
    return [f"{request.method} {request.path}" for request in changing if "validate-yaml" not in request.path]
