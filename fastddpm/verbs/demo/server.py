"""Server of the page: who is let in, and what leaves the machine (nothing).

Gradio's own start looks for updates, sends statistics, reads settings from the environment, takes another port where
one is taken, and answers any site that names this machine. So the page is put into an app of ours, on a socket of ours.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastddpm.verbs.demo.answers import MAX_FILE_BYTES
from fastddpm.verbs.demo.opened_model import OpenRun
from fastddpm.verbs.demo.request import LOOPBACK


def quiet_gradio(uploads: str) -> None:
    """Before Gradio is imported: no statistics, no look for updates, and a folder of our own for what comes in."""
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", GRADIO_ROOT_PATH="")
    os.environ.update(GRADIO_TEMP_DIR=uploads, GRADIO_EXAMPLES_CACHE=uploads)  # no other folder is served
    os.environ.update(GRADIO_ANALYTICS_MAX_EVENTS="100")  # kept in memory
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


def app_of(run: OpenRun, host: str) -> Any:
    """The page of a run as an ASGI app, guarded; its pictures are tidied until the run is closed."""
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from fastddpm.verbs.demo.guarded import Guarded, Uploads, take_only
    from fastddpm.verbs.demo.page import page_of
    from fastddpm.verbs.demo.parts import STYLE, THEME
    from fastddpm.verbs.demo.readers import MAX_SESSIONS, Readers

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    off = dict.fromkeys(("run_history", "ssr_mode", "mcp_server", "pwa", "enable_monitoring"), False)
    readers = Readers(run)
    page = page_of(run, readers)
    page.state_session_capacity = MAX_SESSIONS
    uploads = Uploads(page.GRADIO_CACHE)
    take_only(page, uploads)
    look = {"theme": THEME, "css": STYLE, "footer_links": []}
    gr.mount_gradio_app(app, page, "/", max_file_size=MAX_FILE_BYTES, app_kwargs={"openapi_url": None}, **off, **look)
    if host in LOOPBACK:  # a site whose name leads to this machine is none of ours
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"])
    app.add_middleware(Guarded, uploads=uploads, readers=readers)
    threading.Thread(target=_tidy, args=(uploads.tidy, run.is_closing), daemon=True).start()
    return app


def _tidy(tidy: Callable[[], None], is_closing: threading.Event) -> None:
    while not is_closing.wait(60):
        tidy()


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

    Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=1)).run(sockets=[socket])
