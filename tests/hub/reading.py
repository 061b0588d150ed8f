"""Answers that change nothing: who am I, what is there, and the bytes of files."""

import hashlib
import re
from typing import Any
from urllib.parse import parse_qs

from tests.hub import cards
from tests.hub.repos import Commit, File, HubError, Repo
from tests.hub.routing import PAGE, REPO, REVISION, Answer, Call, as_json, route


@route("GET", "/api/whoami-v2")
def whoami(call: Call) -> Answer:
    access = call.signed_in()
    token = {"type": "access_token", "accessToken": {"displayName": "test", "role": access.role}}
    return as_json({"type": "user", "id": access.user, "name": access.user, "orgs": [], "auth": token})


@route("GET", f"/api/{REPO}/auth-check")
def auth_check(call: Call) -> Answer:
    call.readable()
    return Answer()


@route("GET", f"/api/{REPO}(?:/revision/{REVISION})?")
def info(call: Call) -> Answer:
    """`model_info` and `dataset_info`; with `expand`, of what it names only."""
    repo = call.readable()
    values = _info(repo, repo.at(call.revision), call.is_on("blobs"))
    wanted = call.query.get("expand")
    return as_json({key: values[key] for key in values if not wanted or key in {"id", *wanted}})


def _info(repo: Repo, commit: Commit, with_blobs: bool) -> dict[str, Any]:
    card = cards.metadata(commit.files["README.md"].content.decode()) if "README.md" in commit.files else {}
    siblings = [
        {"rfilename": path, **(_blob(file) if with_blobs else {})} for path, file in sorted(commit.files.items())
    ]
    named = {key: card[key] for key in ("library_name", "pipeline_tag", "model-index") if key in card}
    return {
        "id": repo.id, "author": repo.owner, "sha": commit.sha, "private": repo.is_private, "gated": False,
        "disabled": False, "downloads": 0, "likes": 0, "tags": list(card.get("tags") or []), "cardData": card,
        "siblings": siblings, "lastModified": commit.date, "createdAt": commit.history()[-1].date, **named,
    }  # fmt: skip


def _blob(file: File) -> dict[str, Any]:
    lfs = {"lfs": {"sha256": file.sha256, "size": len(file.content), "pointerSize": len(file.pointer)}}
    return {"blobId": file.git_oid, "size": len(file.content), **(lfs if file.is_lfs else {})}


@route("GET", f"/api/{REPO}/refs")
def refs(call: Call) -> Answer:
    repo = call.readable()

    def listed(kind: str, commits: dict[str, Commit]) -> list[dict[str, str]]:
        return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c.sha} for n, c in sorted(commits.items())]

    branches, tags = listed("heads", repo.branches), listed("tags", repo.tags)
    return as_json({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


@route("GET", f"/api/{REPO}/commits/{REVISION}")
def commits(call: Call) -> Answer:
    return as_json([
        {"id": c.sha, "title": c.title, "message": c.description, "date": c.date, "authors": [{"user": c.author}]}
        for c in call.readable().at(call.revision).history()
    ])  # fmt: skip


@route("GET", f"/api/{REPO}/tree/{REVISION}(?:/(?P<path>.*))?")
def tree(call: Call) -> Answer:
    """Files and folders below a path, on one page however many there are."""
    commit, folder = call.readable().at(call.revision), (call.groups["path"] or "").strip("/")
    prefix = f"{folder}/" if folder else ""
    names = [name.removeprefix(prefix) for name in commit.files if name.startswith(prefix)]
    if not names and folder:
        raise HubError(404, f'{folder} does not exist on "{call.revision}"', "EntryNotFound")
    paths = {
        prefix + "/".join(parts[: n + 1]) for parts in (name.split("/") for name in names) for n in range(len(parts))
    }
    if not call.is_on("recursive"):
        paths = {path for path in paths if "/" not in path.removeprefix(prefix)}
    return as_json([_entry(commit, path, call.is_on("expand")) for path in sorted(paths)])


@route("POST", f"/api/{REPO}/paths-info/{REVISION}")
def paths_info(call: Call) -> Answer:
    """Of the paths that exist, without a word about the others."""
    commit = call.readable().at(call.revision)
    is_form = "json" not in call.headers.get("Content-Type", "")
    asked: dict[str, Any] = parse_qs(call.body.decode()) if is_form else call.json()
    expand = str(asked.get("expand", "")).strip("[]'").lower() in ("true", "1")
    paths = [path.strip("/") for path in asked.get("paths", [])]
    return as_json([_entry(commit, path, expand) for path in paths if path and commit.below(path)])


def _entry(commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    file = commit.files.get(path)
    if file is None:
        below = sorted((name, held.git_oid) for name, held in commit.below(path).items())
        entry: dict[str, Any] = {"type": "directory", "oid": hashlib.sha1(repr(below).encode()).hexdigest(), "size": 0}
    else:
        entry = {"type": "file", "oid": file.git_oid, "size": len(file.content)}
        if file.is_lfs:
            entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": len(file.pointer)}
    if expand:
        last = commit.last_change(path)
        entry["lastCommit"] = {"id": last.sha, "title": last.title, "date": last.date}
    return {**entry, "path": path}


@route("GET HEAD", f"/{PAGE}/resolve/{REVISION}/(?P<path>.+)")
def resolve(call: Call) -> Answer:
    """A file itself, or for a large one the signed address of its content, as at the real Hub on another origin."""
    repo = call.readable()
    commit, file = repo.file(call.revision, call.groups["path"])
    headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{file.etag}"'}
    if not file.is_lfs:
        return Answer(*ranged(file.content, call.headers.get("Range"), headers))
    size = len(file.content)
    linked = {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(size)}
    location = call.hub.signed_url("GET", repo, file.sha256, size)
    return Answer(status=302, headers={**headers, **linked, "Location": location})


@route("GET HEAD", f"/storage/{REPO}/(?P<sha256>[0-9a-f]{{64}})")
def stored(call: Call) -> Answer:
    repo, sha256 = call.hub.check_signature("GET", call)
    return Answer(*ranged(repo.lfs_objects[sha256], call.headers.get("Range"), {"ETag": f'"{sha256}"'}))


def ranged(content: bytes, span: str | None, headers: dict[str, str]) -> tuple[bytes, int, dict[str, str]]:
    """Body, status and headers of `content`, or of the one range of it that `span` ("bytes=2-5") names."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    asked = re.fullmatch(r"bytes=(?:(\d+)-(\d*)|-(\d+))", span or "")
    if asked is None:
        return content, 200, headers
    size, (first, last, num_last) = len(content), asked.groups()
    start = int(first) if first else max(0, size - int(num_last))
    stop = min(size, int(last) + 1) if last else size
    if start >= size:
        raise HubError(416, "Range not satisfiable", **{"Content-Range": f"bytes */{size}"})
    return content[start:stop], 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
