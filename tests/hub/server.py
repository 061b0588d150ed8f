"""A Hub on this machine, in memory: as much of huggingface.co as huggingface_hub, diffusers and datasets ask for.

    with TestHub(users={"ann": {"hf_ann": "write", "hf_ann_read": "read"}}) as hub:
        subprocess.run([sys.executable, "-c", "..."], env=hub.env(tmp_path, token="hf_ann"))
        assert hub.files("ann/model")["config.json"] == b"{}"

    server.py    the two HTTP servers, what was asked of them, and faults
    routing.py   from a request to the function that answers it
    reading.py   whoami, info, refs, commits, tree, paths-info, resolve
    writing.py   create, visibility, branch, tag, preupload, LFS, commit, validate-yaml
    repos.py     repositories, commits, files; who may do what
    cards.py     the metadata of model cards

The protocol is what the client of huggingface_hub sends and reads. Left out: Xet, organizations, spaces, pull requests,
gated repositories, deletion of repositories and branches, other settings than visibility, pagination, multipart
uploads, .gitignore rules.
"""

import hashlib
import hmac
import os
import secrets
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.hub import reading, writing  # noqa: F401  (they register their routes)
from tests.hub.faults import ConnectionCut, Faults
from tests.hub.repos import Access, Commit, HubError, Repo, Store
from tests.hub.routing import Answer, Call, answer


@dataclass(frozen=True)
class Request:
    """What a client sent. `status` is None where the connection was cut, and `body_size` what had come by then."""

    method: str
    path: str
    has_token: bool
    body_size: int
    status: int | None


class TestHub:
    """The Hub as a context manager; a second origin, another port, serves the content of large files.

    Args: users: name -> its tokens -> the role of each, "write" or "read".
    """

    __test__ = False  # no test class, whatever its name

    def __init__(self, users: dict[str, dict[str, str]]):
        self._tokens = {token: Access(user, role) for user, held in users.items() for token, role in held.items()}
        self._secret = secrets.token_bytes(16)
        self.store, self.faults, self.lock = Store(), Faults(), threading.RLock()
        self.requests: list[Request] = []

    def __enter__(self) -> "TestHub":
        self._servers = [_Server(("127.0.0.1", 0), _Handler, hub=self) for _ in range(2)]
        self.url, self.storage_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def env(self, home: Path, token: str | None = None) -> dict[str, str]:
        """The environment of a client process that knows this Hub, and nothing of the one who runs the tests."""
        known = ("HF_", "HUGGING", "TRANSFORMERS_", "DIFFUSERS_")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(known) and not k.lower().endswith("_proxy")}
        settings = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        quiet = {
            "OMP_NUM_THREADS": "1",  # as in the process of the tests: sums of another number of threads round otherwise
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        }
        return {**clean, **settings, **quiet, **({"HF_TOKEN": token} if token else {})}

    def repo(self, repo_id: str, repo_type: str = "model") -> Repo:
        return self.store.repos[repo_type, repo_id]

    def files(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> dict[str, bytes]:
        """Path -> content, .gitattributes of the first commit included."""
        return {path: file.content for path, file in self.repo(repo_id, repo_type).at(revision).files.items()}

    def commits(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> list[Commit]:
        """The newest first; the last is the one that a repository is born with."""
        return self.repo(repo_id, repo_type).at(revision).history()

    def fail_after(self, *, num_bytes: int | None = None, num_requests: int | None = None) -> None:
        """Take that much of large-file uploads, then cut the connection of each one until `heal`."""
        self.faults.upload_bytes_left, self.faults.uploads_left = num_bytes, num_requests

    def reject(self, path_part: str, *, status: int, method: str | None = None, times: int | None = None) -> None:
        """Answer `status` to requests whose path has `path_part`, `times` times or until `heal`."""
        self.faults.reject(path_part, status, method, times)

    def heal(self) -> None:
        """End every fault."""
        self.faults = Faults()

    def page(self, repo_type: str, repo_id: str) -> str:
        return f"{self.url}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}"

    def access(self, headers: Any) -> Access | None:
        """Who a request comes from; a token that nobody has is an error even where none is needed."""
        given = headers.get("Authorization")
        token = (given or "").removeprefix("Bearer ")
        if given is not None and token not in self._tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self._tokens.get(token)

    def signed_url(self, method: str, repo: Repo, sha256: str, size: int) -> str:
        """An address of the storage that needs no token."""
        signature = self._sign(method, repo.type, repo.id, sha256, str(size))
        query = urlencode({"size": size, "signature": signature})
        return f"{self.storage_url}/storage/{repo.type}s/{repo.id}/{sha256}?{query}"

    def check_signature(self, method: str, call: Call) -> tuple[Repo, str]:
        """The repository and the sha256 of a request to a `signed_url`."""
        sha256, size, given = (
            call.groups["sha256"],
            call.query.get("size", [""])[0],
            call.query.get("signature", [""])[0],
        )
        if not hmac.compare_digest(given, self._sign(method, call.repo_type, call.groups["repo_id"], sha256, size)):
            raise HubError(403, "The signature is not valid", "AccessDenied")
        return self.repo(call.groups["repo_id"], call.repo_type), sha256

    def _sign(self, *parts: str) -> str:
        return hmac.new(self._secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client may keep its connection; nobody waits for it

    def __init__(self, *arguments: Any, hub: TestHub):
        self.hub = hub
        super().__init__(*arguments)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        hub, self._num_received = self.server.hub, 0
        try:
            body = b"".join(self._body_pieces())
            rejected = hub.faults.rejection(self.command, self.path)
            result = rejected or answer(hub, self.command, self.path, self.headers, body)
        except ConnectionError:  # cut by a fault, or by the client
            self._record(None)
            self.close_connection = True
            return
        self._record(result.status)
        self._send(result)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _body_pieces(self):
        is_upload = self.command == "PUT" and self.path.startswith("/storage/")
        faults = self.server.hub.faults
        if is_upload:
            faults.begin_upload()
        for num_bytes in self._piece_sizes():
            while num_bytes:
                allowed = faults.allowed_bytes(min(num_bytes, 65536)) if is_upload else num_bytes
                piece = self.rfile.read(allowed)
                if not piece:
                    raise ConnectionCut
                num_bytes -= len(piece)
                self._num_received += len(piece)
                yield piece

    def _piece_sizes(self):
        """The body's length, or that of each chunk of a body without one."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            yield int(self.headers.get("Content-Length", 0))
            return
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield size
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _record(self, status: int | None) -> None:
        has_token = "Authorization" in self.headers
        with self.server.hub.lock:
            request = Request(self.command, self.path, has_token, self._num_received, status)
            self.server.hub.requests.append(request)

    def _send(self, result: Answer) -> None:
        self.send_response(result.status)
        for name, value in {**result.headers, "Content-Length": str(len(result.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(result.body)

    def log_message(self, *_: object) -> None:
        """Nothing: the tests read `TestHub.requests`."""
