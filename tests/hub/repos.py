"""What the test Hub keeps: repositories, their commits, branches and tags, and files, all in memory."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

LFS_SUFFIXES = (".safetensors", ".parquet", ".npz", ".png")
LFS_ABOVE_BYTES = 10_000_000
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()


class HubError(Exception):
    """An answer that is an error, with the headers from which huggingface_hub makes its own exceptions."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers


@dataclass(frozen=True)
class File:
    content: bytes
    is_lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()
        )

    @cached_property
    def git_oid(self) -> str:
        """What git names the blob by; of a large file, git has only the pointer."""
        blob = self.pointer if self.is_lfs else self.content
        return hashlib.sha1(b"blob %d\0%b" % (len(blob), blob)).hexdigest()

    @property
    def etag(self) -> str:
        """What the cache of huggingface_hub names the file by, and what it compares before an upload."""
        return self.sha256 if self.is_lfs else self.git_oid


@dataclass(frozen=True, eq=False)
class Commit:
    sha: str
    parent: "Commit | None"
    title: str
    author: str
    files: Mapping[str, File]
    description: str = ""
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))

    def history(self) -> list["Commit"]:
        """This commit first, the oldest last."""
        commits = [self]
        while commits[-1].parent is not None:
            commits.append(commits[-1].parent)
        return commits

    def below(self, path: str) -> dict[str, File]:
        """The files at or below `path`, by whole names; all of them for "" ."""
        prefix = f"{path}/" if path else ""
        return {name: file for name, file in self.files.items() if name == path or name.startswith(prefix)}

    def last_change(self, path: str) -> "Commit":
        """The commit that gave `path`, a file or a folder, what it holds here."""
        commit = self
        while commit.parent is not None and commit.parent.below(path) == self.below(path):
            commit = commit.parent
        return commit


class Repo:
    """One repository; like the real ones it is born with a commit that holds .gitattributes."""

    def __init__(self, repo_type: str, repo_id: str, is_private: bool):
        self.type, self.id, self.is_private = repo_type, repo_id, is_private
        self.owner = repo_id.partition("/")[0]
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, Commit] = {}
        self.tags: dict[str, Commit] = {}
        self.lfs_objects: dict[str, bytes] = {}  # by sha256: uploaded, whether or not a commit names them
        self.add_commit("main", {".gitattributes": File(GITATTRIBUTES)}, title="initial commit", author=self.owner)

    def add_commit(self, branch: str, files: Mapping[str, File], *, title: str, author: str, description: str = ""):
        """Make `files` the whole content of `branch`."""
        parent = self.branches.get(branch)
        tree = sorted((path, file.git_oid) for path, file in files.items())
        identity = repr((self.type, self.id, len(self.commits), parent and parent.sha, tree))
        sha = hashlib.sha1(identity.encode()).hexdigest()
        commit = Commit(sha, parent, title, author, dict(files), description)
        self.commits[sha] = self.branches[branch] = commit
        return commit

    def at(self, revision: str) -> Commit:
        """The commit that a branch, a tag or a full sha names."""
        for names in (self.branches, self.tags, self.commits):
            if revision in names:
                return names[revision]
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def file(self, revision: str, path: str) -> tuple[Commit, File]:
        commit = self.at(revision)
        if path not in commit.files:
            raise HubError(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit.sha})
        return commit, commit.files[path]


@dataclass(frozen=True)
class Access:
    """Who asks: a user, by a token of one role."""

    user: str
    role: str


class Store:
    """All repositories, and who may see and change them. Users own what is under their name; no organizations."""

    def __init__(self):
        self.repos: dict[tuple[str, str], Repo] = {}

    def create(self, access: Access, repo_type: str, repo_id: str, is_private: bool) -> Repo:
        owner, _, name = repo_id.partition("/")
        if not re.fullmatch(r"[\w.-]{1,96}", name):
            raise HubError(400, f"Invalid repo name: {repo_id}")
        if access.user != owner or access.role != "write":
            message = f'You don\'t have the rights to create a {repo_type} under the namespace "{owner}"'
            raise HubError(403, message, "Forbidden")
        repo = self.repos[repo_type, repo_id] = Repo(repo_type, repo_id, is_private)
        return repo

    def readable(self, access: Access | None, repo_type: str, repo_id: str) -> Repo:
        """The repository; a private one exists for its owner only."""
        repo = self.repos.get((repo_type, repo_id))
        if repo is None or (repo.is_private and (access is None or access.user != repo.owner)):
            raise HubError(404, "Repository not found", "RepoNotFound")
        return repo

    def writable(self, access: Access | None, repo_type: str, repo_id: str) -> Repo:
        repo = self.readable(access, repo_type, repo_id)
        if access is None:
            raise HubError(401, "Invalid username or password.")
        if access.user != repo.owner:
            raise HubError(403, "Forbidden: you have no rights to write to this repository", "Forbidden")
        if access.role != "write":
            message = "Forbidden: you must use a write token to upload to a repository."
            raise HubError(403, message, "Forbidden")
        return repo
