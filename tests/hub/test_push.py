"""`fastddpm push` and its kin against the test Hub: what arrives, what does not, and what a user is told."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler
from huggingface_hub import constants, snapshot_download
from PIL import Image

from fastddpm import FastDDPMPipeline
from fastddpm.cli import main
from tests.conftest import stock_unet, tiny_unet
from tests.hub.conftest import sent, writes
from tests.hub.repos import GITATTRIBUTES
from tests.training.runs import free_port

OF_A_RUN = {
    ".gitattributes", "README.md", "denoising.png", "model_index.json", "pipeline.py", "samples.png",
    "scheduler/scheduler_config.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
    "unet/fastddpm.py",
}  # fmt: skip
"""the published files, and what each repository is born with"""


@pytest.fixture
def push(signed_in, capsys):
    """`fastddpm push` in this process: what it prints."""

    def run(*words: object) -> str:
        main(["push", *map(str, words)])
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(signed_in, capsys):
    """`fastddpm push` of what is wrong: its one line."""

    def run(*words: object) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["push", *map(str, words)])
        assert caught.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith("fastddpm: error: ")
        assert not any("Traceback" in line for line in lines)
        return lines[-1].removeprefix("fastddpm: error: ")

    return run


@pytest.mark.slow
def test_push_command_uploads_the_saved_folder_in_one_commit(hub, trained, tmp_path):
    """In a process of its own, long after the one that trained is gone."""
    hidden = {"checkpoints", "metrics.jsonl", "config.yaml", "data.json", "about.json", "report.html", "previews",
              "nearest.png", "variations.png"}  # fmt: skip
    assert hidden <= {path.name for path in trained.iterdir()}
    command = [sys.executable, "-m", "fastddpm", "push", str(trained), "ann/model"]
    env = hub.env(tmp_path / "home", "hf_ann")
    first = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == f"{hub.url}/ann/model ({hub.commits('ann/model')[0].sha}): pushed"
    assert len(hub.commits("ann/model")) == 2  # a repository is born with one
    assert not hub.repo("ann/model").is_private
    files = hub.files("ann/model")
    assert files.keys() == OF_A_RUN
    for name in OF_A_RUN - {".gitattributes", "README.md"}:
        assert files[name] == (trained / name).read_bytes(), name
    assert len(sent(hub, "POST", "/commit/")) == 1
    second = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert "was up to date, no commit was made" in second.stdout
    assert len(hub.commits("ann/model")) == 2
    assert len(sent(hub, "POST", "/commit/")) == 1


def test_private_makes_new_and_public_repositories_private(signed_in, push, trained):
    push(trained, "ann/new", "--private")
    assert signed_in.repo("ann/new").is_private
    push(trained, "ann/old")
    assert not signed_in.repo("ann/old").is_private
    num_before = len(signed_in.requests)
    push(trained, "ann/old", "--private")
    assert signed_in.repo("ann/old").is_private
    later = [request.path for request in signed_in.requests[num_before:] if request.method in ("PUT", "POST")]
    assert later[1] == "/api/models/ann/old/settings", "before anything is uploaded"
    push(trained, "ann/old")
    assert signed_in.repo("ann/old").is_private, "without --private it stays as it is"


@pytest.mark.parametrize("revision", ["v1", "trial/2"])
def test_revision_goes_to_its_branch_only(signed_in, push, trained, revision):
    push(trained, "ann/model", "--revision", revision)
    assert signed_in.files("ann/model", revision).keys() == OF_A_RUN
    assert signed_in.files("ann/model").keys() == {".gitattributes"}
    assert "no commit was made" in push(trained, "ann/model", "--revision", revision)


def test_files_of_an_earlier_push_disappear(signed_in, push, trained, tmp_path):
    push(trained, "ann/model")
    FastDDPMPipeline(stock_unet(), DDPMScheduler(num_train_timesteps=20)).save_pretrained(tmp_path / "stock")
    push(tmp_path / "stock", "ann/model")
    here = signed_in.files("ann/model")
    assert not [name for name in here if name.endswith(".py")]
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert here[weights] == (tmp_path / "stock" / weights).read_bytes()
    assert len(signed_in.commits("ann/model")) == 3


def test_other_files_of_the_repository_stay(signed_in, push, trained):
    push(trained, "ann/model")
    repo = signed_in.repo("ann/model")
    own = {"notes.txt": repo.at("main").files[".gitattributes"]}
    repo.add_commit("main", {**repo.at("main").files, **own}, title="mine", author="ann")
    push(trained, "ann/model")
    assert signed_in.files("ann/model")["notes.txt"] == GITATTRIBUTES


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("fault", [{"num_requests": 1}, {"num_bytes": 9_000}])
def test_push_that_is_cut_goes_on_with_what_is_missing(signed_in, push, refused, trained, fault):
    signed_in.fail_after(**fault)
    message = refused(trained, "ann/model")
    assert "the Hub cannot be reached" in message
    assert message.endswith("push again when it can: what arrived is kept")
    arrived = set(signed_in.repo("ann/model").lfs_objects)
    assert len(signed_in.commits("ann/model")) == 1
    signed_in.heal()
    num_before = len(signed_in.requests)
    push(trained, "ann/model")
    assert signed_in.files("ann/model").keys() == OF_A_RUN
    again = [request.path for request in signed_in.requests[num_before:] if request.method == "PUT"]
    assert len(again) == 3 - len(arrived)
    assert not [path for path in again for sha in arrived if sha in path]


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    ("part", "status", "method"),
    [("/storage/", 403, "PUT"), ("/storage/", 503, "PUT"), ("/commit/", 500, "POST"), ("/preupload/", 403, "POST"),
     ("/resolve/", 500, "HEAD"), ("/repos/create", 500, "POST"), ("/objects/batch", 429, "POST")],
)  # fmt: skip
def test_answers_that_are_errors_make_one_line_and_no_commit(signed_in, refused, trained, part, status, method):
    signed_in.reject(part, status=status, method=method)
    message = refused(trained, "ann/model")
    assert "rejected by the test" in message or "cannot be reached" in message or "may not write" in message
    assert not signed_in.store.repos or len(signed_in.commits("ann/model")) == 1


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("RUN model", "'model' names no owner; wanted user/name"),
        ("RUN ann/mo/del", "is no name for a model on the Hub"),
        ("RUN ann/-model", "is no name for a model on the Hub"),
        ("RUN ../model", "is no name for a model on the Hub"),
        ("RUN https://huggingface.co/ann/model", "is no name for a model on the Hub"),
        ("RUN ann/model --revision v1..2", "is no name for a revision; wanted letters, digits"),
        ("RUN ann/model --revision refs~1", "is no name for a revision"),
        ("RUN ann/model --revision /main", "is no name for a revision"),
        ("RUN ann/model --evaluation none.json", "none.json is no file; give the evaluation.json"),
        ("UNFINISHED ann/model", "holds no saved pipeline yet: its training has not ended; give the folder of a"),
        ("EMPTY ann/model", "holds no model; "),
        ("nowhere ann/model", "there is no run nowhere; "),
        ("BROKEN ann/model", "model_index.json cannot be read ("),
        ("PICKLED ann/model", "is not whole: it has no weights as safetensors"),
        ("RUN bob/model", "may not write to bob/model; wanted ann/..."),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_the_hub_changes(signed_in, refused, trained, tmp_path, words, wanted):
    folders = {"RUN": trained, **_wrong_folders(trained, tmp_path)}
    assert wanted in refused(*(folders.get(word, word) for word in words.split()))
    assert not writes(signed_in)


def _wrong_folders(trained: Path, root: Path) -> dict[str, Path]:
    made = {name: root / name.lower() for name in ("UNFINISHED", "EMPTY", "BROKEN", "PICKLED")}
    (made["UNFINISHED"] / "checkpoints").mkdir(parents=True)
    made["EMPTY"].mkdir()
    made["BROKEN"].mkdir()
    (made["BROKEN"] / "model_index.json").write_text("{")
    shutil.copytree(trained, made["PICKLED"], ignore=shutil.ignore_patterns("*.safetensors", "checkpoints"))
    torch.save({}, made["PICKLED"] / "unet" / "diffusion_pytorch_model.bin")
    return made


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of two images, and a picture beside it that nobody published."""
    folder = tmp_path / "pictures"
    (folder / "dark").mkdir(parents=True)
    for shade, path in enumerate((tmp_path / "beside.png", folder / "0.png", folder / "dark" / "1.png")):
        Image.new("L", (8, 8), 50 * shade).save(path)
    name_images(folder, "0.png", "dark/1.png")
    return folder


def name_images(folder: Path, *names: str) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps({"file_name": name}) + "\n" for name in names))


@pytest.mark.parametrize(
    "name", ["../beside.png", "dark/../../beside.png", "ROOT/beside.png", "link.png", "up/beside.png", "none.png"]
)
def test_images_from_outside_of_their_folder_are_not_published(signed_in, refused, pictures, name):
    (pictures / "link.png").symlink_to("../beside.png")
    (pictures / "up").symlink_to(pictures.parent, target_is_directory=True)
    named = name.replace("ROOT", str(pictures.parent))
    name_images(pictures, "0.png", named)
    message = refused(pictures, "ann/pictures")
    assert message.startswith((f"'{named}' leads out of", f"'{named}' is a link out of", "'none.png' is no file of"))
    assert not signed_in.requests


@pytest.mark.parametrize(
    "line", ['{"seed": 1}', '{"file_name": 3}', "[1]", "{", "[" * 20_000], ids=lambda line: line[:14]
)
def test_a_row_that_names_no_file_is_refused(signed_in, refused, pictures, line):
    (pictures / "metadata.jsonl").write_text(line + "\n")
    assert "metadata.jsonl has the row" in refused(pictures, "ann/pictures")
    assert not signed_in.requests


@pytest.mark.parametrize("name", ["metadata.jsonl", "drawn.parquet"])
def test_a_table_that_is_a_link_to_outside_is_not_published(signed_in, refused, pictures, name):
    (pictures.parent / "beside").write_bytes((pictures / "metadata.jsonl").read_bytes())
    (pictures / name).unlink(missing_ok=True)
    (pictures / name).symlink_to("../beside")
    pushed = pictures if name == "metadata.jsonl" else pictures / name
    assert f"'{name}' is a link out of {pictures}, to {pictures.parent / 'beside'}" in refused(pushed, "ann/pictures")
    assert not signed_in.requests


def test_links_inside_of_a_folder_and_to_it_are_pushed(signed_in, push, pictures, tmp_path):
    (pictures / "link.png").symlink_to("dark/1.png")
    (pictures / "light").symlink_to("dark", target_is_directory=True)
    name_images(pictures, "0.png", "link.png", "light/1.png")
    (tmp_path / "latest").symlink_to(pictures, target_is_directory=True)
    push(tmp_path / "latest", "ann/pictures")
    files = signed_in.files("ann/pictures", repo_type="dataset")
    assert files["images/link.png"] == files["images/light/1.png"] == (pictures / "dark" / "1.png").read_bytes()
    assert files["images/0.png"] == (pictures / "0.png").read_bytes()


@pytest.mark.parametrize("name", [
    "model_index.json", "README.md", "samples.png", "unet", "scheduler/scheduler_config.json", "about.json",
    "evaluation/evaluation.json",
])  # fmt: skip
def test_a_model_does_not_publish_what_its_links_lead_to(signed_in, refused, trained, tmp_path, name):
    """Nor does its card: it is written from the last two."""
    model, beside = tmp_path / "model", tmp_path / "beside"
    shutil.copytree(trained, model, ignore=shutil.ignore_patterns("checkpoints"))
    if (model / name).exists():
        (model / name).rename(beside)
    else:
        beside.write_text("{}")
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).symlink_to(beside)
    message = refused(model, "ann/model")
    assert message.startswith(f"'{name}")
    assert f"is a link out of {model}, to {beside}" in message
    assert not signed_in.requests


def test_a_downloaded_snapshot_is_pushed_as_a_copy_without_links(signed_in, push, refused, trained, tmp_path):
    """The cache of huggingface_hub keeps a snapshot as links to files beside it."""
    push(trained, "ann/model")
    snapshot = Path(snapshot_download("ann/model", cache_dir=tmp_path / "cache"))
    assert (snapshot / "model_index.json").is_symlink()
    assert refused(snapshot, "ann/again").endswith("push a copy without links, as cp -rL makes it")
    shutil.copytree(snapshot, tmp_path / "copy")
    push(tmp_path / "copy", "ann/again")
    assert signed_in.files("ann/again").keys() == OF_A_RUN


def test_a_dcgan_is_refused(signed_in, refused, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DCGANPipeline"}))
    assert "is a DCGAN, the baseline of this package, which diffusers cannot load; push a DDPM" in refused(
        tmp_path, "ann/model"
    )
    assert not signed_in.requests


@pytest.mark.parametrize(
    ("token", "wanted"),
    [
        (None, "there is no token for the Hub; set HF_TOKEN, or run `hf auth login`, with a token that may write"),
        ("hf_nobody", "the Hub does not accept the token (Invalid user token."),
        ("hf_ann_read", "the token (test) of ann may only read; set HF_TOKEN, or run `hf auth login`"),
        ("hf_bob", "the token (test) of bob may not write to ann/model; wanted bob/..."),
    ],
)
def test_token_that_cannot_push_is_refused_before_anything_is_sent(
    signed_in, refused, trained, monkeypatch, token, wanted
):
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    assert wanted in refused(trained, "ann/model")
    assert not writes(signed_in)
    assert not signed_in.store.repos


def test_unreachable_hub_is_one_line(refused, trained, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free_port()}")
    assert refused(trained, "ann/model").startswith("the Hub cannot be reached (")


def test_offline_mode_is_said(refused, trained, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refused(trained, "ann/model") == "HF_HUB_OFFLINE is set, so nothing can be pushed; unset it"


def test_pipelines_push_the_same_layout(signed_in, tmp_path):
    pipeline = FastDDPMPipeline(tiny_unet(), DDPMScheduler(num_train_timesteps=20))
    url = pipeline.push_to_hub("ann/one", private=True, commit_message="Mine")
    pipeline.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="ann/two", private=True)
    assert url == f"{signed_in.url}/ann/one"
    one, two = signed_in.files("ann/one"), signed_in.files("ann/two")
    assert one.keys() == two.keys() == OF_A_RUN - {"samples.png", "denoising.png"}
    assert {name for name in one if one[name] != two[name]} == {"README.md"}, "which has the name in it"
    assert signed_in.repo("ann/one").is_private
    assert signed_in.repo("ann/two").is_private
    assert signed_in.commits("ann/one")[0].title == "Mine"
    assert len(signed_in.commits("ann/two")) == 2
    pipeline.push_to_hub("ann/one")
    assert len(signed_in.commits("ann/one")) == 2


def test_pipelines_refuse_what_is_not_supported(signed_in, tmp_path):
    pipeline = FastDDPMPipeline(tiny_unet(), DDPMScheduler(num_train_timesteps=20))
    for option in ({"subfolder": "deep"}, {"safe_serialization": False}):
        with pytest.raises(ValueError, match="not supported"):
            pipeline.push_to_hub("ann/model", **option)
    with pytest.raises(ValueError, match="names no owner"):
        pipeline.save_pretrained(tmp_path / "model", push_to_hub=True)
    assert not writes(signed_in)


def test_no_path_of_this_machine_travels(signed_in, push, trained, tmp_path):
    """diffusers notes in a network's config where it was loaded from."""
    loaded = FastDDPMPipeline.from_pretrained(trained)
    assert str(trained) in loaded.unet.config["_name_or_path"]
    loaded.push_to_hub("ann/one")
    DDPMPipeline(unet=loaded.unet, scheduler=loaded.scheduler).save_pretrained(tmp_path / "saved")
    assert "_name_or_path" in (tmp_path / "saved" / "unet" / "config.json").read_text()
    push(tmp_path / "saved", "ann/two")
    for repo_id in ("ann/one", "ann/two"):
        for name, content in signed_in.files(repo_id).items():
            assert str(tmp_path.parent.parent).encode() not in content, (repo_id, name)
            assert name.endswith(".py") or b"_name_or_path" not in content, (repo_id, name)


def test_diffusers_own_arguments_of_pushing(signed_in, monkeypatch):
    """The token that is given counts, whichever the environment has."""
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    pipeline = FastDDPMPipeline(tiny_unet(), DDPMScheduler(num_train_timesteps=20))
    mine = {"token": "hf_ann"}
    pipeline.push_to_hub("ann/model", "First", True, **mine)
    assert signed_in.repo("ann/model").is_private
    assert signed_in.commits("ann/model")[0].title == "First"
    pipeline.push_to_hub("ann/model", variant="fp16", **mine)
    weights = {name for name in signed_in.files("ann/model") if name.endswith(".safetensors")}
    assert weights == {f"unet/diffusion_pytorch_model{ending}.safetensors" for ending in ("", ".fp16")}
    pipeline.push_to_hub("ann/model", revision="v1", **mine)
    assert "unet/config.json" in signed_in.files("ann/model", "v1")
    before = signed_in.files("ann/model")
    other = FastDDPMPipeline(stock_unet(), DDPMScheduler(num_train_timesteps=20))
    url = other.push_to_hub("ann/model", create_pr=True, commit_message="Take this", **mine)
    assert url == f"{signed_in.url}/ann/model/discussions/1"
    assert signed_in.files("ann/model") == before
    assert signed_in.commits("ann/model", "refs/pr/1")[0].title == "Take this"
    assert json.loads(signed_in.files("ann/model", "refs/pr/1")["unet/config.json"])["_class_name"] == "UNet2DModel"


def test_saving_pushes_with_the_same_arguments(signed_in, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    pipeline = FastDDPMPipeline(tiny_unet(), DDPMScheduler(num_train_timesteps=20))
    options = {"token": "hf_ann", "variant": "fp16", "revision": "v1", "commit_message": "Mine", "private": True}
    pipeline.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="ann/model", **options)
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in signed_in.files("ann/model", "v1")
    assert signed_in.commits("ann/model", "v1")[0].title == "Mine"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hf_ann" in path.read_bytes()]


@pytest.mark.parametrize("token", ["hf_canary0\n", "hf_canary0\r\nX-Evil: 1", "hf_canary0 ", "hf_canary0\u00fc"])
def test_a_token_that_is_none_is_not_shown(signed_in, capfd, token):
    pipeline = FastDDPMPipeline(tiny_unet(), DDPMScheduler(num_train_timesteps=20))
    with pytest.raises(ValueError, match="characters which no token has") as refusal:
        pipeline.push_to_hub("ann/model", token=token)
    assert "canary" not in str(refusal.value) + "".join(capfd.readouterr())
    assert not signed_in.requests


@pytest.mark.parametrize("name", ["notes.txt", ".env", "x.png/../.env", "metadata.jsonl", "deep/.git/config"])
def test_what_is_no_picture_of_ours_is_not_published(signed_in, refused, pictures, name):
    (pictures / "deep" / ".git").mkdir(parents=True)
    for file in ("notes.txt", ".env", "deep/.git/config"):
        (pictures / file).write_text("canary")
    name_images(pictures, "0.png", name)
    assert refused(pictures, "ann/pictures").startswith(f"'{name}' ")
    assert not signed_in.requests


def test_pipes_and_folders_are_not_published(signed_in, refused, pictures):
    os.mkfifo(pictures / "pipe.png")
    (pictures / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        name_images(pictures, "0.png", name)
        assert refused(pictures, "ann/pictures").startswith(f"'{name}' is no file of")
    assert not signed_in.requests


SECRET = "canary-7f3c-secret"


def test_a_secret_around_the_folder_reaches_nobody(signed_in, push, trained, pictures, tmp_path, monkeypatch):
    """Beside the folder, in it, in the environment, in git's config and in names of the machine's folders."""
    home = tmp_path / SECRET
    model = shutil.copytree(trained, home / "model")
    drawn = shutil.copytree(pictures, home / "drawn")
    (home / ".gitconfig").write_text(f"[user]\n\tname = {SECRET}\n\temail = {SECRET}@example.com\n")
    places = [home, model, model / "unet", model / "scheduler", model / "checkpoints", drawn, drawn / "dark"]
    for place in places:
        place.mkdir(exist_ok=True)
        for name in (".env", "notes.md", "token", "secret.safetensors", "secret.png", "secret.json", "secret.py"):
            (place / name).write_text(SECRET)
        (place / ".git").mkdir()
        (place / ".git" / "config").write_text(f"[remote]\n\turl = https://{SECRET}@example.com\n")
    for name in ("HOME", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "WANDB_API_KEY", "USER", "GIT_AUTHOR_NAME"):
        monkeypatch.setenv(name, str(home) if name == "HOME" else SECRET)
    push(model, "ann/model")
    push(drawn, "ann/drawn")
    FastDDPMPipeline.from_pretrained(model).push_to_hub("ann/again", token="hf_ann")
    assert len(signed_in.store.repos) == 3
    for repo in signed_in.store.repos.values():
        contents = [file.content for commit in repo.commits.values() for file in commit.files.values()]
        names = [name for commit in repo.commits.values() for name in commit.files]
        words = [word for commit in repo.commits.values() for word in (commit.title, commit.description)]
        for held in (*contents, *repo.lfs_objects.values(), *map(str.encode, [*names, *words])):
            assert SECRET.encode() not in held
            assert b"hf_ann" not in held
    assert not [request for request in signed_in.requests if SECRET in request.path]
