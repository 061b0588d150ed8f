"""Faults on demand: uploads that break in the middle, and answers that are errors."""

import threading
from dataclasses import dataclass, field

from tests.hub.routing import Answer, as_json


class ConnectionCut(ConnectionError):
    """The connection is to be closed without an answer."""


@dataclass
class _Rejection:
    path_part: str
    status: int
    method: str | None
    times_left: int | None


@dataclass
class Faults:
    upload_bytes_left: int | None = None  # None: as much as comes
    uploads_left: int | None = None
    _rejections: list[_Rejection] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin_upload(self) -> None:
        """Raises ConnectionCut: this upload is one too many."""
        with self._lock:
            if self.uploads_left == 0:
                raise ConnectionCut
            if self.uploads_left is not None:
                self.uploads_left -= 1

    def allowed_bytes(self, num_bytes: int) -> int:
        """How many of the next `num_bytes` of an upload still come through.  Raises ConnectionCut: none."""
        with self._lock:
            if self.upload_bytes_left is None:
                return num_bytes
            if self.upload_bytes_left == 0:
                raise ConnectionCut
            allowed = min(num_bytes, self.upload_bytes_left)
            self.upload_bytes_left -= allowed
            return allowed

    def reject(self, path_part: str, status: int, method: str | None, times: int | None) -> None:
        with self._lock:
            self._rejections.append(_Rejection(path_part, status, method, times))

    def rejection(self, method: str, path: str) -> Answer | None:
        """The error that this request gets, if one was ordered."""
        with self._lock:
            for ordered in self._rejections:
                if ordered.path_part in path and ordered.method in (None, method) and ordered.times_left != 0:
                    if ordered.times_left is not None:
                        ordered.times_left -= 1
                    message = "rejected by the test"
                    return as_json({"error": message}, ordered.status, **{"X-Error-Message": message})
        return None
