"""Answers that change a repository: create, branch, tag, upload, commit."""

import base64
import hashlib
import json
from typing import Any

from tests.hub import cards
from tests.hub.repos import LFS_ABOVE_BYTES, LFS_SUFFIXES, File, HubError, Repo
from tests.hub.routing import PAGE, REPO, REVISION, Answer, Call, as_json, route


@route("POST", "/api/validate-yaml")
def validate_yaml(call: Call) -> Answer:
    """Errors and warnings about a card, also as plain text, which `RepoCard.validate` asks for."""
    errors, warnings = cards.check(call.json().get("content", ""))
    status = 400 if errors else 200
    if call.headers.get("Accept") == "text/plain":
        return Answer("\n".join(errors or warnings).encode(), status, {"Content-Type": "text/plain; charset=utf-8"})
    values = {"errors": errors, "warnings": warnings}
    return as_json({kind: [{"message": text} for text in texts] for kind, texts in values.items()}, status)


@route("POST", "/api/repos/create")
def create_repo(call: Call) -> Answer:
    access, asked = call.signed_in(), call.json()
    repo_type, store = asked.get("type") or "model", call.hub.store
    if repo_type not in ("model", "dataset"):
        raise HubError(400, f"The test Hub has models and data sets, no {repo_type}")
    repo_id = f"{asked.get('organization') or access.user}/{asked['name']}"
    named = {"name": repo_id, "id": repo_id, "url": call.hub.page(repo_type, repo_id)}
    if (repo_type, repo_id) in store.repos and access.user == repo_id.partition("/")[0]:
        return as_json({"error": f"You already created this {repo_type} repo", **named}, 409)
    store.create(access, repo_type, repo_id, asked.get("visibility") == "private" or asked.get("private") is True)
    return as_json(named)


@route("PUT", f"/api/{REPO}/settings")
def settings(call: Call) -> Answer:
    """Visibility alone."""
    repo, asked = call.writable(), call.json()
    if asked.get("visibility") not in ("public", "private"):
        raise HubError(400, f"The test Hub sets visibility only, got {asked}")
    repo.is_private = asked["visibility"] == "private"
    return as_json({"private": repo.is_private})


@route("POST", f"/api/{REPO}/branch/{REVISION}")
def create_branch(call: Call) -> Answer:
    repo = call.writable()
    start = repo.at(call.json().get("startingPoint") or "main")
    return _name(repo.branches, call.revision, start)


@route("POST", f"/api/{REPO}/tag/{REVISION}")
def create_tag(call: Call) -> Answer:
    repo = call.writable()
    return _name(repo.tags, call.json()["tag"], repo.at(call.revision))


def _name(names: dict, name: str, commit: Any) -> Answer:
    if name in names:
        raise HubError(409, f"Reference already exists: {name}")
    names[name] = commit
    return as_json({"success": True})


@route("POST", f"/api/{REPO}/preupload/{REVISION}")
def preupload(call: Call) -> Answer:
    """How each file is to come, and what is there under its name: the client leaves out what did not change."""
    here = call.writable().at(call.revision).files

    def plan(path: str, size: int) -> dict[str, Any]:
        mode = "lfs" if path.endswith(LFS_SUFFIXES) or size > LFS_ABOVE_BYTES else "regular"
        known = {"oid": here[path].etag} if path in here else {}
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, **known}

    return as_json({"files": [plan(file["path"], file["size"]) for file in call.json()["files"]]})


@route("POST", rf"/{PAGE}\.git/info/lfs/objects/batch")
def lfs_batch(call: Call) -> Answer:
    """Where to put the objects that are not here yet; the others get no action."""
    repo, asked = call.writable(), call.json()
    if asked.get("operation") != "upload" or asked.get("hash_algo", "sha256") != "sha256":
        raise HubError(400, "The test Hub takes uploads named by sha256 only")
    objects = [_upload_of(call, repo, wanted["oid"], wanted["size"]) for wanted in asked["objects"]]
    return as_json({"transfer": "basic", "objects": objects})


def _upload_of(call: Call, repo: Repo, oid: str, size: int) -> dict[str, Any]:
    if oid in repo.lfs_objects:
        return {"oid": oid, "size": size}
    verify = f"{call.hub.page(repo.type, repo.id)}.git/info/lfs/objects/verify"
    upload = {"href": call.hub.signed_url("PUT", repo, oid, size)}
    return {"oid": oid, "size": size, "authenticated": True, "actions": {"upload": upload, "verify": {"href": verify}}}


@route("PUT", f"/storage/{REPO}/(?P<sha256>[0-9a-f]{{64}})")
def store_object(call: Call) -> Answer:
    repo, sha256 = call.hub.check_signature("PUT", call)
    size = int(call.query["size"][0])
    if len(call.body) != size:
        raise HubError(400, f"size ({len(call.body)}) is not that of the batch ({size})")
    if hashlib.sha256(call.body).hexdigest() != sha256:
        raise HubError(400, f"the content is not that of sha256 {sha256}")
    repo.lfs_objects[sha256] = call.body
    return Answer(headers={"ETag": f'"{sha256}"'})


@route("POST", rf"/{PAGE}\.git/info/lfs/objects/verify")
def lfs_verify(call: Call) -> Answer:
    asked = call.json()
    _lfs_file(call.writable(), asked["oid"], asked["size"])
    return as_json({})


def _lfs_file(repo: Repo, oid: str, size: int | None) -> File:
    if oid not in repo.lfs_objects:
        raise HubError(400, f"An LFS pointer points to an object that was not uploaded: {oid}")
    if size is not None and size != len(repo.lfs_objects[oid]):
        raise HubError(400, f"size ({size}) of {oid} is not that of its content ({len(repo.lfs_objects[oid])})")
    return File(repo.lfs_objects[oid], is_lfs=True)


@route("POST", f"/api/{REPO}/commit/{REVISION}")
def commit(call: Call) -> Answer:
    """One NDJSON line a change; all of them or none."""
    repo = call.writable()
    if call.revision not in repo.branches:
        raise HubError(404, f"Invalid rev id: {call.revision}", "RevisionNotFound")
    head = repo.branches[call.revision]
    files, header = dict(head.files), {}
    for line in call.body.splitlines():
        item = json.loads(line)
        if item["key"] == "header":
            header = item["value"]
        else:
            _apply(repo, files, item["key"], item["value"])
    if header.get("parentCommit", head.sha) != head.sha:
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    _check_card(files)
    written = {"title": header["summary"], "description": header.get("description", "")}
    proposal = f"refs/pr/{1 + sum(name.startswith('refs/pr/') for name in repo.branches)}"
    branch = proposal if call.is_on("create_pr") else call.revision
    repo.branches.setdefault(branch, head)
    made = repo.add_commit(branch, files, author=call.signed_in().user, **written)
    address = f"{call.hub.page(repo.type, repo.id)}/commit/{made.sha}"
    page = f"{call.hub.page(repo.type, repo.id)}/discussions/{branch.rpartition('/')[2]}"
    proposed = {"pullRequestUrl": page} if branch == proposal else {}
    return as_json({"success": True, "commitOid": made.sha, "commitUrl": address, "hookOutput": "", **proposed})


def _apply(repo: Repo, files: dict[str, File], key: str, value: dict[str, Any]) -> None:
    path = value["path"].strip("/")
    if key == "file":
        files[path] = File(base64.b64decode(value["content"], validate=True))
    elif key == "lfsFile":
        files[path] = _lfs_file(repo, value["oid"], value.get("size"))
    elif key in ("deletedFile", "deletedFolder"):
        gone = [name for name in files if name == path or (key == "deletedFolder" and name.startswith(f"{path}/"))]
        if not gone:
            raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        for name in gone:
            del files[name]
    else:
        raise HubError(400, f"Unknown key in a commit: {key}")


def _check_card(files: dict[str, File]) -> None:
    errors, _ = cards.check(files["README.md"].content.decode()) if "README.md" in files else ([], [])
    if errors:
        raise HubError(400, f"Invalid metadata in README.md: {'; '.join(errors)}")
