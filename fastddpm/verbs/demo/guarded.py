"""Guard of the page's server: lets in what its own page asks, files of its own folder, and so much of both."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fastddpm.verbs.demo.answers import GONE, MAX_FILE_BYTES
from fastddpm.verbs.demo.readers import Readers

MAX_UPLOAD_BYTES = MAX_FILE_BYTES + 2**20
MAX_QUESTION_BYTES = 4 * 2**20
MAX_KEPT_BYTES = 512 * 2**20
"""pictures in all, in and out; an eighth of it may be arriving"""
MAX_AGE = 3600
"""seconds"""
TIDIED_AWAY = f"the picture {GONE}"
NOT_UPLOADED = "the question names what is not among this page's uploads; drop the file itself on the page"
ROUTES = re.compile(
    r"GET /(config|theme\.css|favicon\.ico|(assets|static)/.+|"
    r"gradio_api/(queue/data|heartbeat/\w+|upload_progress|file=.+))?|"
    r"POST /gradio_api/(queue/join|run/predict|upload)",
    re.DOTALL,
)
"""requests of the page to Gradio; others of its routes fetch what they are told to, or run what is posted"""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
"""a browser that obeys it asks no other machine for anything, whatever the page says"""


class Uploads:
    """Folder of the pictures that come in and are shown. Those that lie in it at first are the page's own, and stay."""

    def __init__(self, folder: str):
        self.folder = Path(folder).resolve()
        self._own = {path for _, _, path in self._files()}
        self.num_arriving = 0
        """bytes that arrive now"""

    def find(self, path: Any) -> str | None:
        """A path, links resolved; None: it leads out of the folder."""
        try:
            found = os.path.realpath(path)
        except (OSError, TypeError, ValueError):  # TypeError: a number; ValueError: a null byte
            return None
        return found if self.folder in Path(found).parents else None

    @contextmanager
    def arriving(self, num_bytes: int) -> Iterator[None]:
        """Make room for what arrives."""
        self.num_arriving += num_bytes
        self.tidy()
        try:
            yield
        finally:
            self.num_arriving -= num_bytes

    def tidy(self) -> None:
        """Remove files older than `MAX_AGE`, and the oldest beyond `MAX_KEPT_BYTES`; whole or broken off, all alike."""
        files = sorted(file for file in self._files() if file[2] not in self._own)
        kept = sum(size for _, size, _ in files) + self.num_arriving
        for changed, size, path in files:
            if kept <= MAX_KEPT_BYTES and changed > time.time() - MAX_AGE:
                break
            kept -= size
            with suppress(OSError):
                path.unlink()
                path.parent.rmdir()

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Time of the last change, bytes, path."""
        for parent, _, names in os.walk(self.folder):
            for path in (Path(parent, name) for name in names):
                with suppress(OSError):
                    status = path.lstat()
                    yield status.st_ctime, status.st_size, path


def take_only(page: Any, uploads: Uploads) -> None:
    """Have a page refuse a question that names anything outside its upload folder, with links resolved.

    Gradio compares paths with that folder only in pages that it launched itself, and copies a file that is named in
    place of a number too. So every input is looked at before Gradio reads any, and has the resolved path from then on.
    """
    preprocess = page.preprocess_data

    async def checked(block_fn: Any, inputs: list[Any], *rest: Any, **named: Any) -> Any:
        import gradio as gr

        for file in _files_in(inputs):
            found = uploads.find(file["path"])
            if found is None or not os.path.exists(found):
                reason = NOT_UPLOADED if found is None else TIDIED_AWAY
                raise gr.Error(reason, title="Refused", print_exception=False)
            file["path"] = found
        return await preprocess(block_fn, inputs, *rest, **named)

    page.preprocess_data = checked


def _files_in(value: Any) -> Iterator[dict[str, Any]]:
    """All that Gradio could take for a file, at any depth of JSON."""
    if isinstance(value, dict) and "path" in value:
        yield value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _files_in(part)


class Guarded:
    """Lets in what the page asks, of a size; refuses other sites; tells browsers to ask no other machine."""

    def __init__(self, app: Any, uploads: Uploads, readers: Readers):
        self.app, self._uploads, self._readers = app, uploads, readers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, path = dict(scope["headers"]), scope["path"]
        most = MAX_UPLOAD_BYTES if path.endswith("/upload") else MAX_QUESTION_BYTES
        declared = headers.get(b"content-length", b"" if b"transfer-encoding" in headers else b"0").decode("latin-1")
        coming, received = int(declared) if declared.isdecimal() else most, 0
        refusal = self._refusal(f"{scope['method']} {path}", headers, coming, most)
        if refusal is not None:
            await _refuse(send, *refusal)
            return

        async def counted() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message if received <= most else {"type": "http.disconnect"}

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = {b"content-security-policy": POLICY.encode(), b"referrer-policy": b"no-referrer"}
                message = {**message, "headers": [*message["headers"], *added.items()]}
            await send(message)

        noted: Any = nullcontext()
        if path.endswith("/queue/data"):
            session = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
            noted = self._readers.reading(session)
        elif path.endswith("/upload"):
            noted = self._uploads.arriving(coming)
        with noted:
            await self.app(scope, counted, with_policy)

    def _refusal(self, asked: str, headers: dict[bytes, bytes], coming: int, most: int) -> tuple[int, str] | None:
        """Status and reason of a request that is not let in."""
        file = asked.partition("/gradio_api/file=")[2]
        if not ROUTES.fullmatch(asked) or (file and self._uploads.find(file) is None):
            return 404, "the page has no such part"
        if asked.startswith("POST") and _is_foreign(headers):
            return 403, "asked by another site than this page"
        if coming > most:
            return 413, f"larger than {most // 2**20} MiB: make it smaller first"
        if asked.endswith("/upload") and self._uploads.num_arriving + coming > MAX_KEPT_BYTES // 8:
            return 503, "too many pictures arrive at once: try again in a moment"
        return None


def _is_foreign(headers: dict[bytes, bytes]) -> bool:
    """True if a browser says that another site asks."""
    origin = urlsplit(headers.get(b"origin", b"").decode("latin-1")).netloc
    is_other = b"origin" in headers and origin != headers.get(b"host", b"").decode("latin-1")
    return is_other or headers.get(b"sec-fetch-site", b"same-origin") != b"same-origin"


async def _refuse(send: Any, status: int, reason: str) -> None:
    text = reason.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
