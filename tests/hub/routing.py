"""From a request to the function that answers it."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.repos import Access, HubError, Repo

if TYPE_CHECKING:
    from tests.hub.server import TestHub

REPO = r"(?P<types>models|datasets)/(?P<repo_id>[^/]+/[^/]+)"
PAGE = r"(?:(?P<types>datasets)/)?(?P<repo_id>[^/]+/[^/]+?)"  # models have no prefix outside /api
REVISION = r"(?P<revision>[^/]+)"


@dataclass(frozen=True)
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json", **headers})


@dataclass(frozen=True)
class Call:
    """One request: what the path says, in `groups`, with what came along."""

    hub: "TestHub"
    groups: dict[str, str]
    query: dict[str, list[str]]
    headers: Any
    body: bytes
    access: Access | None

    @property
    def repo_type(self) -> str:
        return (self.groups["types"] or "models").removesuffix("s")

    @property
    def revision(self) -> str:
        return self.groups.get("revision") or "main"

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise HubError(400, f"Invalid JSON: {error}") from error

    def is_on(self, name: str) -> bool:
        return self.query.get(name, [""])[0].lower() in ("1", "true")

    def signed_in(self) -> Access:
        if self.access is None:
            raise HubError(401, "Invalid username or password.")
        return self.access

    def readable(self) -> Repo:
        return self.hub.store.readable(self.access, self.repo_type, self.groups["repo_id"])

    def writable(self) -> Repo:
        return self.hub.store.writable(self.access, self.repo_type, self.groups["repo_id"])


Handler = Callable[[Call], Answer]
_ROUTES: list[tuple[tuple[str, ...], re.Pattern, Handler]] = []


def route(methods: str, path: str) -> Callable[[Handler], Handler]:
    """Let a function answer "METHOD ..." requests whose still quoted path matches."""

    def register(handler: Handler) -> Handler:
        _ROUTES.append((tuple(methods.split()), re.compile(path), handler))
        return handler

    return register


def answer(hub: "TestHub", method: str, target: str, headers: Any, body: bytes) -> Answer:
    """The answer to one request, errors included."""
    url = urlsplit(target)
    try:
        for methods, pattern, handler in _ROUTES:
            match = pattern.fullmatch(url.path) if method in methods else None
            if match:
                groups = {name: value and unquote(value) for name, value in match.groupdict().items()}
                query = parse_qs(url.query)
                with hub.lock:
                    return handler(Call(hub, groups, query, headers, body, hub.access(headers)))
        raise HubError(404, f"Sorry, the test Hub knows no {method} {url.path}")
    except HubError as error:
        named = {"X-Error-Code": error.code} if error.code else {}
        return as_json({"error": error.message}, error.status, **named, **_message(error), **error.headers)


def _message(error: HubError) -> dict[str, str]:
    return {"X-Error-Message": error.message.encode("latin-1", "replace").decode("latin-1").replace("\n", " ")}
