"""Readers wait for an answer: nothing is computed for a page that is closed, or that wants it to end."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from fastddpm.verbs.demo.answers import AskedToStop, OnStep
from fastddpm.verbs.demo.opened_model import OpenRun

SECONDS_TO_COME = 1
"""time from a question to the stream that its answer goes to"""
MAX_SESSIONS = 64
"""sessions that are remembered; the longest unused are forgotten"""


class Readers:
    """Browser sessions that ask, and what each of them wants to end."""

    def __init__(self, run: OpenRun):
        self._run = run
        self._open: Counter[str] = Counter()
        """session -> streams that it reads answers from"""
        self._stopped: dict[tuple[str, str], float] = {}
        """(session, tab) -> when Stop was pressed last, by the monotonic clock"""

    @contextmanager
    def reading(self, session: str) -> Iterator[None]:
        """Count a stream of answers as long as it is open."""
        self._open[session] += 1
        try:
            yield
        finally:
            self._open -= Counter([session])
            for key in [key for key in list(self._stopped) if key[0] not in self._open]:
                del self._stopped[key]

    def on_step(self, tab: str, progress: gr.Progress) -> OnStep:
        """Make a callback for the answer to the question of this thread: it shows each step to the reader. It ends the
        answer where nobody reads it, Stop was pressed after the question, the page asks anew or the server ends.

        Raises: AskedToStop: one of these is so already.
        """
        blocks, event_id = LocalContext.blocks.get(), LocalContext.event_id.get()
        assert blocks is not None, "only within an answer of the page"
        queue = blocks._queue
        # Gradio's record; `alive` until the stream that the answer goes to is closed, as it is with its page
        question: Any = queue.event_ids_to_events[str(event_id)]
        session, asked = question.session_hash, question.enqueue_time
        for other in list(queue.pending_event_ids_session)[:-MAX_SESSIONS]:
            if other not in self._open:
                queue.pending_event_ids_session.pop(other, None)

        def check() -> None:
            is_read = question.alive and (session in self._open or time.monotonic() < asked + SECONDS_TO_COME)
            waiting = [each for of in list(queue.event_queue_per_concurrency_id.values()) for each in list(of.queue)]
            is_asked_anew = any(each.session_hash == session and each.fn is question.fn for each in waiting)
            is_stopped = self._stopped.get((session, tab), asked) > asked
            if is_asked_anew or is_stopped or not is_read or self._run.is_closing.is_set():
                raise AskedToStop

        def told(done: int, steps: int) -> None:
            check()
            progress((done, steps), unit="steps")

        check()
        return told

    def stop(self, tab: str, session: str) -> None:
        """Have the answers end that a session waits for on a tab."""
        if session in self._open:
            self._stopped[session, tab] = time.monotonic()
