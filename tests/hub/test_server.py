"""The test Hub through huggingface_hub's own client, in this process."""

import io
import json
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import _http

from tests.hub.conftest import CARD, client, contents, pushed, sent
from tests.hub.repos import GITATTRIBUTES, HubError, Repo


def test_whoami_gives_name_and_role(hub):
    assert client(hub).whoami()["name"] == "ann"
    assert client(hub, "hf_ann_read").whoami()["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError, match="Invalid user token") as caught:
        client(hub, "hf_nobody").whoami()
    assert caught.value.response.status_code == 401


def test_create_repo_is_private_and_made_once(hub):
    api = client(hub)
    url = api.create_repo("model", private=True)
    assert (url.repo_id, url.repo_type) == ("ann/model", "model")
    assert api.model_info("ann/model").private is True
    with pytest.raises(HfHubHTTPError, match="You already created this model repo"):
        api.create_repo("ann/model")
    assert api.create_repo("ann/model", exist_ok=True).repo_id == "ann/model"
    data = api.create_repo("ann/model", repo_type="dataset")  # a name of its own kind
    assert (data.repo_id, data.repo_type) == ("ann/model", "dataset")
    assert api.dataset_info("ann/model").private is False
    assert hub.files("ann/model") == {".gitattributes": GITATTRIBUTES}


def test_upload_folder_is_one_commit(hub, folder):
    api = client(hub)
    api.create_repo("ann/model")
    done = api.upload_folder(repo_id="ann/model", folder_path=folder, commit_message="First")
    assert [commit.title for commit in hub.commits("ann/model")] == ["First", "initial commit"]
    assert done.oid == hub.commits("ann/model")[0].sha == api.model_info("ann/model").sha
    assert done.commit_url == f"{hub.url}/ann/model/commit/{done.oid}"
    assert hub.files("ann/model") == {".gitattributes": GITATTRIBUTES, **contents(folder)}
    assert [commit.title for commit in api.list_repo_commits("ann/model")] == ["First", "initial commit"]


def test_same_upload_again_makes_no_commit(hub, folder):
    api = pushed(hub, folder)
    before = api.model_info("ann/model").sha
    num_requests = len(hub.requests)
    assert api.upload_folder(repo_id="ann/model", folder_path=folder).oid == before
    assert len(hub.commits("ann/model")) == 2
    new = hub.requests[num_requests:]
    assert not any(request.method == "PUT" or "/commit/" in request.path for request in new)


def test_changed_file_is_the_only_one_sent(hub, folder):
    api = pushed(hub, folder)
    (folder / "unet" / "config.json").write_text("{}")
    api.upload_folder(repo_id="ann/model", folder_path=folder, delete_patterns="*.md")
    newest, before, _ = hub.commits("ann/model")
    assert newest.files["unet/config.json"].content == b"{}"
    assert newest.files["unet/model.safetensors"] is before.files["unet/model.safetensors"]
    assert len(sent(hub, "PUT", "/storage/")) == 1


def test_weights_never_travel_in_the_commit(hub, folder):
    pushed(hub, folder)
    (put,) = sent(hub, "PUT", "/storage/models/ann/model/")
    (commit,) = sent(hub, "POST", "/commit/main")
    assert (put.body_size, put.has_token, put.status) == (300_000, False, 200)
    assert commit.body_size < 2000
    assert commit.has_token


def test_preupload_sends_binary_and_large_files_to_the_storage(hub):
    client(hub).create_repo("ann/model")
    sizes = {"a.safetensors": 1, "b.parquet": 1, "c.npz": 1, "d.png": 1, "e.bin": 10_000_001, "f.bin": 9, "g.py": 9}
    files = [{"path": path, "size": size, "sample": ""} for path, size in sizes.items()]
    url, headers = f"{hub.url}/api/models/ann/model/preupload/main", {"Authorization": "Bearer hf_ann"}
    answer = _http.get_session().post(url, json={"files": files}, headers=headers).json()["files"]
    assert {file["path"] for file in answer if file["uploadMode"] == "regular"} == {"f.bin", "g.py"}


def test_commit_deletes_and_checks_its_parent(hub, folder):
    api = pushed(hub, folder)
    first = api.model_info("ann/model").sha
    api.create_commit("ann/model", [CommitOperationDelete("unet/")], commit_message="No unet", parent_commit=first)
    assert set(hub.files("ann/model")) == {".gitattributes", "README.md"}
    addition = CommitOperationAdd("x.txt", b"x")
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        api.create_commit("ann/model", [addition], commit_message="Late", parent_commit=first)
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
        api.delete_file("none.txt", "ann/model")
    assert len(hub.commits("ann/model")) == 3


def test_branches_and_tags_are_revisions(hub, folder):
    api = pushed(hub, folder)
    main = api.model_info("ann/model").sha
    api.create_tag("ann/model", tag="v1")
    api.create_branch("ann/model", branch="run/2")
    with pytest.raises(HfHubHTTPError, match="Reference already exists"):
        api.create_branch("ann/model", branch="run/2")
    api.create_branch("ann/model", branch="run/2", exist_ok=True)
    api.upload_file(path_or_fileobj=b"new", path_in_repo="new.txt", repo_id="ann/model", revision="run/2")
    refs = api.list_repo_refs("ann/model")
    assert {ref.name for ref in refs.branches} == {"main", "run/2"}
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", main)]
    assert "new.txt" not in hub.files("ann/model")
    assert hub.files("ann/model", revision="run/2")["new.txt"] == b"new"
    assert api.model_info("ann/model", revision="v1").sha == api.model_info("ann/model", revision=main).sha == main
    with pytest.raises(RevisionNotFoundError):
        api.upload_file(path_or_fileobj=b"", path_in_repo="a", repo_id="ann/model", revision="none")


def test_info_tree_and_paths_agree(hub, folder):
    api = pushed(hub, folder)
    info = api.model_info("ann/model", files_metadata=True)
    assert (info.tags, info.library_name, info.card_data.license) == (["ddpm"], "diffusers", "mit")
    weights = next(file for file in info.siblings if file.rfilename == "unet/model.safetensors")
    assert weights.size == weights.lfs.size == 300_000
    top = {entry.path: type(entry).__name__ for entry in api.list_repo_tree("ann/model")}
    assert top == {".gitattributes": "RepoFile", "README.md": "RepoFile", "unet": "RepoFolder"}
    below = list(api.list_repo_tree("ann/model", "unet", recursive=True, expand=True))
    assert [entry.path for entry in below] == ["unet/config.json", "unet/model.safetensors"]
    assert below[1].lfs.sha256 == weights.lfs.sha256
    assert below[0].last_commit.oid == info.sha
    paths = api.get_paths_info("ann/model", ["unet", "README.md", "none"], expand=True)
    assert [(entry.path, entry.last_commit.oid) for entry in paths] == [("unet", info.sha), ("README.md", info.sha)]
    assert api.model_info("ann/model", expand=["sha"]).siblings is None
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("ann/model", "none"))


def test_snapshot_download_gives_the_same_bytes(hub, folder, tmp_path):
    api = pushed(hub, folder)
    got = Path(api.snapshot_download("ann/model", cache_dir=tmp_path / "cache"))
    assert contents(got) == hub.files("ann/model")
    assert got.name == api.model_info("ann/model").sha


def test_download_by_commit_gives_what_was_then(hub, folder, tmp_path):
    api = pushed(hub, folder)
    first = api.model_info("ann/model").sha
    weights = io.BytesIO(b"second weights")
    api.upload_file(path_or_fileobj=weights, path_in_repo="unet/model.safetensors", repo_id="ann/model")

    def download(revision):
        path = api.hf_hub_download("ann/model", "unet/model.safetensors", revision=revision, cache_dir=tmp_path / "c")
        return Path(path).read_bytes()

    assert download(first) == (folder / "unet" / "model.safetensors").read_bytes()
    assert download("main") == b"second weights"
    with pytest.raises(RevisionNotFoundError):
        download("0" * 40)
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("ann/model", "none.json", cache_dir=tmp_path / "c")


def test_storage_never_sees_the_token(hub, folder, tmp_path):
    pushed(hub, folder, private=True).snapshot_download("ann/model", cache_dir=tmp_path / "cache")
    (get,) = sent(hub, "GET", "/storage/")
    assert not get.has_token
    assert all(request.has_token for request in sent(hub, "GET", "/resolve/"))


@pytest.mark.parametrize("name", ["README.md", "unet/model.safetensors"])
def test_ranges_are_parts_of_the_file(hub, folder, name):
    whole = (folder / name).read_bytes()
    pushed(hub, folder)
    url = hf_hub_url("ann/model", name, endpoint=hub.url)

    def get(span: str) -> tuple[int, bytes]:
        response = _http.get_session().get(url, headers={"Range": f"bytes={span}"}, follow_redirects=True)
        return response.status_code, response.content

    for span, part in [("2-5", whole[2:6]), ("10-", whole[10:]), ("-3", whole[-3:]), ("0-999999999", whole)]:
        assert get(span) == (206, part)
    assert get("0-1,4-5") == (200, whole)  # several ranges: a server may send it all
    assert get("999999999-")[0] == 416


def test_private_repo_exists_for_its_owner_only(hub, folder, tmp_path):
    pushed(hub, folder, private=True)
    for token in (False, "hf_bob"):
        with pytest.raises(RepositoryNotFoundError):
            client(hub, token).hf_hub_download("ann/model", "README.md", cache_dir=tmp_path / "none")
        with pytest.raises(RepositoryNotFoundError):
            client(hub, token).model_info("ann/model")
        assert not client(hub, token).repo_exists("ann/model")
    client(hub, "hf_ann_read").auth_check("ann/model")
    path = client(hub, "hf_ann_read").hf_hub_download("ann/model", "README.md", cache_dir=tmp_path / "cache")
    assert Path(path).read_text() == CARD
    with pytest.raises(RepositoryNotFoundError):
        client(hub).model_info("ann/none")


@pytest.mark.parametrize("token", ["hf_ann_read", "hf_bob"])
def test_only_the_owners_write_token_writes(hub, folder, token):
    pushed(hub, folder)
    (folder / "more.txt").write_text("more")
    api = client(hub, token)
    with pytest.raises(HfHubHTTPError, match="403 Forbidden") as caught:
        api.upload_folder(repo_id="ann/model", folder_path=folder)
    headers = caught.value.response.headers
    assert headers["X-Error-Code"] == "Forbidden"
    assert headers["X-Error-Message"] == caught.value.response.json()["error"]
    with pytest.raises(HfHubHTTPError, match='rights to create a model under the namespace "ann"'):
        api.create_repo("ann/other")
    with pytest.raises(HfHubHTTPError, match="403 Forbidden"):
        api.create_branch("ann/model", branch="b")
    assert len(hub.commits("ann/model")) == 2
    assert api.model_info("ann/model").id == "ann/model"


def test_upload_without_a_token_is_refused(hub, folder):
    pushed(hub, folder)
    with pytest.raises(HfHubHTTPError) as caught:
        client(hub, False).upload_file(path_or_fileobj=b"", path_in_repo="a", repo_id="ann/model")
    assert caught.value.response.status_code == 401


@pytest.mark.usefixtures("no_waiting")
def test_upload_that_breaks_succeeds_on_the_second_call(hub, folder):
    api = client(hub)
    api.create_repo("ann/model")
    hub.fail_after(num_bytes=100_000)
    with pytest.raises(RuntimeError, match="Error while uploading 'unet/model.safetensors' to the Hub"):
        api.upload_folder(repo_id="ann/model", folder_path=folder)
    broken = sent(hub, "PUT", "/storage/")
    assert broken[0].status is None
    assert sum(request.body_size for request in broken) == 100_000
    assert len(hub.commits("ann/model")) == 1
    hub.heal()
    api.upload_folder(repo_id="ann/model", folder_path=folder)
    assert hub.files("ann/model") == {".gitattributes": GITATTRIBUTES, **contents(folder)}


@pytest.mark.usefixtures("no_waiting")
def test_second_call_sends_only_what_is_missing(hub, folder):
    (folder / "ema.safetensors").write_bytes(b"ema" * 1000)
    api = client(hub)
    api.create_repo("ann/model")
    hub.fail_after(num_requests=1)
    with pytest.raises(RuntimeError, match="Error while uploading"):
        api.upload_folder(repo_id="ann/model", folder_path=folder)
    assert [request.status for request in sent(hub, "PUT", "/storage/")].count(200) == 1
    hub.heal()
    num_requests = len(hub.requests)
    api.upload_folder(repo_id="ann/model", folder_path=folder)
    assert sum(request.method == "PUT" for request in hub.requests[num_requests:]) == 1
    assert len(hub.commits("ann/model")) == 2


@pytest.mark.usefixtures("no_waiting")
def test_short_fault_goes_unnoticed(hub, folder):
    hub.reject("/storage/", method="PUT", status=503, times=2)
    pushed(hub, folder)
    assert [request.status for request in sent(hub, "PUT", "/storage/")] == [503, 503, 200]


def test_rejected_commit_leaves_nothing(hub, folder):
    api = client(hub)
    api.create_repo("ann/model")
    hub.reject("/commit/", status=500)
    with pytest.raises(HfHubHTTPError, match="rejected by the test"):
        api.upload_folder(repo_id="ann/model", folder_path=folder)
    assert len(hub.commits("ann/model")) == 1


def test_objects_are_checked(hub, folder):
    pushed(hub, folder)
    repo = hub.repo("ann/model")
    session = _http.get_session()
    right = "7509e5bda0c762d2bac7f90d758b5b2263fa01ccbc542ab5e3df163be08e6ca9"  # sha256 of b"hello world!"
    for content, size, message in [
        (b"hello world?", 12, "is not that of sha256"),
        (b"hello", 12, "is not that of the"),
    ]:
        response = session.put(hub.signed_url("PUT", repo, right, size), content=content)
        assert response.status_code == 400
        assert message in response.json()["error"]
    assert session.put(hub.signed_url("GET", repo, right, 12), content=b"hello world!").status_code == 403
    assert right not in repo.lfs_objects
    pieces = iter([b"hello ", b"world!"])  # without a length: in chunks
    assert session.put(hub.signed_url("PUT", repo, right, 12), content=pieces).status_code == 200
    assert repo.lfs_objects[right] == b"hello world!"
    line = {"path": "a.npz", "algo": "sha256", "oid": "0" * 64, "size": 3}
    commit = f'{{"key": "header", "value": {{"summary": "x"}}}}\n{json.dumps({"key": "lfsFile", "value": line})}'
    url, headers = f"{hub.url}/api/models/ann/model/commit/main", {"Authorization": "Bearer hf_ann"}
    response = session.post(url, content=commit, headers=headers)
    assert (response.status_code, len(hub.commits("ann/model"))) == (400, 2)
    assert "was not uploaded" in response.headers["X-Error-Message"]


def test_env_carries_nothing_of_the_user(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_private")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    env = hub.env(tmp_path)
    assert "HF_TOKEN" not in env
    assert "HF_HUB_OFFLINE" not in env
    assert (env["HF_HOME"], env["HF_ENDPOINT"]) == (str(tmp_path), hub.url)


def test_unknown_request_says_what_it_was(hub):
    response = _http.get_session().get(f"{hub.url}/api/spaces/ann/x")
    assert (response.status_code, response.json()["error"]) == (
        404,
        "Sorry, the test Hub knows no GET /api/spaces/ann/x",
    )


def test_revision_is_a_name_or_a_full_sha():
    repo = Repo("model", "ann/x", is_private=False)
    (sha,) = repo.commits
    assert repo.at(sha) is repo.at("main")
    with pytest.raises(HubError, match="Invalid rev id"):
        repo.at(sha[:7])
