"""Readers wait for an answer: nothing is computed for a page that is closed, or that wants it to end."""

import time
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from fastddpm.verbs.demo.answers import AskedToStop, OnStep
from fastddpm.verbs.demo.opened_model import OpenRun


class Readers:
    """Browser sessions that ask, and what each of them wants to end."""

    def __init__(self, run: OpenRun):
        self._run = run
        self._stopped: dict[tuple[str, str], float] = {}
        """(session, tab) -> when Stop was pressed last, by the monotonic clock"""

    def on_step(self, tab: str, progress: gr.Progress) -> OnStep:
        """Make a callback for the answer to the question of this thread: it shows each step to the reader. It ends the
        answer where the page is closed, Stop was pressed after the question, or the server ends."""
        blocks, event_id = LocalContext.blocks.get(), LocalContext.event_id.get()
        assert blocks is not None, "only within an answer of the page"
        # Gradio's record; `alive` until the stream that the answer goes to is closed, as it is with its page
        question: Any = blocks._queue.event_ids_to_events[str(event_id)]
        key = (question.session_hash, tab)

        def told(done: int, steps: int) -> None:
            is_stopped = self._stopped.get(key, question.enqueue_time) > question.enqueue_time
            if is_stopped or not question.alive or self._run.is_closing.is_set():
                raise AskedToStop
            progress((done, steps), unit="steps")

        return told

    def stop(self, tab: str, session: str) -> None:
        """Have the answers end that a session waits for on a tab."""
        self._stopped[session, tab] = time.monotonic()
