"""Server of the page: who is let in, and what leaves the machine (nothing).

Gradio's own start looks for updates, sends statistics, reads settings from the environment, takes another port where
one is taken, and answers any site that names this machine. So the page is put into an app of ours, on a socket of ours.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastddpm.verbs.demo.answers import GONE, MAX_FILE_BYTES
from fastddpm.verbs.demo.opened_model import OpenRun
from fastddpm.verbs.demo.request import LOOPBACK

TIDIED_AWAY = f"the picture {GONE}"
NOT_UPLOADED = "the question names what is not among this page's uploads; drop the file itself on the page"
MAX_REQUEST_BYTES = MAX_FILE_BYTES + 2**20
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
"""a browser that obeys it asks no other machine for anything, whatever the page says"""


def quiet_gradio(uploads: str) -> None:
    """Before Gradio is imported: no statistics, no look for updates, and a folder of our own for what comes in."""
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", GRADIO_ROOT_PATH="")
    os.environ.update(GRADIO_TEMP_DIR=uploads, GRADIO_EXAMPLES_CACHE=uploads)  # no other folder is served
    os.environ.update({f"GRADIO_{name}": "False" for name in ("ANALYTICS_ENABLED", "MCP_SERVER", "SSR_MODE")})


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """The socket, bound to exactly this address.

    Raises: OSError: the port is taken, or the address is none of this machine's; says what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OSError(f"--host {host} is no address of this machine ({error.strerror or error})") from error
    with opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind(address)
            opened.listen(64)
        except OSError as error:
            raise OSError(
                f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port, or 0 for any that is "
                "free, and a --host of this machine"
            ) from error
        yield opened


def app_of(page: Any, host: str) -> Any:
    """The page as an ASGI app: no API pages, no large uploads, no requests of other sites, no files but uploads."""
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from fastddpm.verbs.demo.parts import STYLE, THEME

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    off = dict.fromkeys(("run_history", "ssr_mode", "mcp_server", "pwa", "enable_monitoring"), False)
    take_only_uploads(page)
    look = {"theme": THEME, "css": STYLE, "footer_links": []}
    gr.mount_gradio_app(app, page, "/", max_file_size=MAX_FILE_BYTES, app_kwargs={"openapi_url": None}, **off, **look)
    if host in LOOPBACK:  # a site whose name leads to this machine is none of ours
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"])
    app.add_middleware(Guarded)
    return app


def take_only_uploads(page: Any) -> None:
    """Have a page refuse a question that names anything outside its upload folder, with links resolved.

    Gradio compares paths with that folder only in pages that it launched itself, and copies a file that is named in
    place of a number too. So every input is looked at before Gradio reads any, and has the resolved path from then on.
    """
    folder, preprocess = Path(page.GRADIO_CACHE).resolve(), page.preprocess_data

    async def checked(block_fn: Any, inputs: list[Any], *rest: Any, **named: Any) -> Any:
        for file in _files(inputs):
            file["path"] = _within(folder, file["path"])
        return await preprocess(block_fn, inputs, *rest, **named)

    page.preprocess_data = checked


def _files(value: Any) -> Iterator[dict[str, Any]]:
    """All that Gradio could take for a file, at any depth of JSON."""
    if isinstance(value, dict) and "path" in value:
        yield value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _files(part)


def _within(folder: Path, path: Any) -> str:
    """A path, resolved.  Raises: gr.Error: it leads out of the folder, or to nothing."""
    import gradio as gr

    try:
        found = os.path.realpath(path)
    except (OSError, TypeError, ValueError):  # TypeError: a number; ValueError: a null byte
        found = os.sep
    if folder not in Path(found).parents:
        raise gr.Error(NOT_UPLOADED, title="Refused", print_exception=False)
    if not os.path.exists(found):
        raise gr.Error(TIDIED_AWAY, title="Refused", print_exception=False)
    return found


class Guarded:
    """Refuses requests that are too large, and tells browsers to ask no other machine."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > MAX_REQUEST_BYTES:
            await _refuse(send)
            return
        received = 0

        async def counted() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message if received <= MAX_REQUEST_BYTES else {"type": "http.disconnect"}

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = {b"content-security-policy": POLICY.encode(), b"referrer-policy": b"no-referrer"}
                message = {**message, "headers": [*message["headers"], *added.items()]}
            await send(message)

        await self.app(scope, counted, with_policy)


async def _refuse(send: Any) -> None:
    text = f"larger than {MAX_FILE_BYTES // 2**20} MiB: make it smaller first".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def serve(app: Any, socket: socket.socket, run: OpenRun) -> None:
    """Answer until interrupted, which ends what is being computed.

    Raises: KeyboardInterrupt: it was.
    """
    import uvicorn

    host, port = socket.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"{run.name}: http://{shown}:{port}  (Ctrl-C ends it)", flush=True)
    if host not in LOOPBACK:
        print(
            f"warning: {host} is not loopback: anyone who reaches this machine can use the page, and its processor; "
            "there is no password",
            flush=True,
        )

    class Server(uvicorn.Server):
        def handle_exit(self, *signal: Any) -> None:
            run.is_closing.set()
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it tells of each page that is still open
            super().handle_exit(*signal)

    Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run(sockets=[socket])
