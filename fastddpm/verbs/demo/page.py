"""The page: what is where, and which question each dial asks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import numpy as np

from fastddpm.verbs.demo.answers import Answer, AskedToStop, Finding, OnStep, blend, detect, vary
from fastddpm.verbs.demo.opened_model import OpenRun
from fastddpm.verbs.demo.parts import (
    PRIVATE,
    dial_inputs,
    dials_of,
    picture_input,
    pixels_of,
    shown,
    sketch_input,
)

COMPUTING: dict[str, Any] = {
    "concurrency_id": "model", "concurrency_limit": 1, "trigger_mode": "always_last",
    "show_progress": "minimal", **PRIVATE,
}  # fmt: skip
"""one answer at a time; of the questions that come meanwhile, the last one of each page is answered"""


@dataclass
class Stops:
    """Browser sessions that want what is computed for them to end."""

    sessions: set[str] = field(default_factory=set)

    def on_step(self, run: OpenRun, request: gr.Request, progress: gr.Progress) -> OnStep:
        """Told of each step of a computation: shows it, and ends it where that is asked for."""
        session = str(request.session_hash)
        self.sessions.discard(session)

        def told(done: int, steps: int) -> None:
            if run.is_closing.is_set() or session in self.sessions:
                raise AskedToStop
            progress((done, steps), unit="steps")

        return told

    def stop(self, request: gr.Request) -> None:
        self.sessions.add(str(request.session_hash))


def page_of(run: OpenRun, scheduler: str, num_inference_steps: int) -> gr.Blocks:
    """The page of a run.

    Args:
        scheduler, num_inference_steps: what its dials begin with.
    """
    stops = Stops()
    with gr.Blocks(title=f"{run.name}: fastddpm", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# {run.name}\n{run.facts}", elem_classes="facts")
        with gr.Tab("Variations"):
            _variations(run, stops, scheduler, num_inference_steps)
        with gr.Tab("Blend"):
            _blends(run, stops, scheduler, num_inference_steps)
        with gr.Tab("Anomaly"):
            _anomalies(run)
    page.queue(max_size=64)
    return page


def _variations(run: OpenRun, stops: Stops, scheduler: str, steps: int) -> None:
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            with gr.Tab("A picture"):
                picture = picture_input(run, "Drop a picture here", "vary-picture")
            with gr.Tab("Draw one"):
                sketch_input(run, picture)
            dials = dial_inputs(run, scheduler, steps, "vary")
            again, stop = _buttons("vary")
        with gr.Column(scale=6, min_width=300):
            outputs = _outputs("As the model takes it", "Noised to t", "Variations", "vary")

    def answer(upload: Any, *values: Any, request: gr.Request, progress: gr.Progress) -> Any:
        def asked() -> Answer | None:
            pixels = pixels_of(run, upload)
            return None if pixels is None else vary(run, pixels, dials_of(values), on_step)

        on_step = stops.on_step(run, request, progress)
        return _shown(asked)

    _wire(answer, [picture], dials.all, outputs, again, stop, stops)


def _blends(run: OpenRun, stops: Stops, scheduler: str, steps: int) -> None:
    _, height, width = run.image_shape
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            with gr.Row():
                with gr.Column(min_width=140):
                    one = picture_input(run, "A picture", "blend-one", 170)
                with gr.Column(min_width=140):
                    other = picture_input(run, "Its partner", "blend-other", 170)
            gr.Markdown("The box that comes from the partner, in pixels:", elem_classes="facts")
            box = [
                slider
                for pair in ((("Top", 0, height - 1, 0), ("Left", 0, width - 1, width // 2)),
                             (("Height", 1, height, height), ("Width", 1, width, width - width // 2)))
                for slider in _sliders(pair)
            ]  # fmt: skip
            dials = dial_inputs(run, scheduler, steps, "blend")
            again, stop = _buttons("blend")
        with gr.Column(scale=6, min_width=300):
            outputs = _outputs("The paste", "Noised to t", "Blends", "blend")

    def answer(upload: Any, partner: Any, *values: Any, request: gr.Request, progress: gr.Progress) -> Any:
        def asked() -> Answer | None:
            pair = [pixels_of(run, x) for x in (upload, partner)]
            if pair[0] is None or pair[1] is None:
                return None
            return blend(run, pair[0], pair[1], [int(x) for x in values[:4]], dials_of(values[4:]), on_step)

        on_step = stops.on_step(run, request, progress)
        return _shown(asked)

    _wire(answer, [one, other], [*box, *dials.all], outputs, again, stop, stops)


def _anomalies(run: OpenRun) -> None:
    look: dict[str, Any] = {"interactive": False, "format": "png", "buttons": [], "elem_classes": "pixels"}
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            picture = picture_input(run, "Drop a picture here", "anomaly-picture")
            gr.Markdown(f"Normal: {run.normal_from}", elem_classes="facts")
        with gr.Column(scale=6, min_width=300):
            with gr.Row():
                given = gr.Image(
                    label="As the model takes it", height=260, elem_id="anomaly-given", min_width=140, **look
                )
                overlay = gr.Image(
                    label="Where it is not normal", height=260, elem_id="anomaly-map", min_width=140, **look
                )
            verdict = gr.Markdown(elem_id="anomaly-verdict")
            images = gr.Gallery(
                label="What the model makes of it", columns=4, height="auto", object_fit="contain",
                elem_id="anomaly-images", **{**look, "elem_classes": "pixels results"},
            )  # fmt: skip

    def answer(upload: Any, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
        try:
            pixels = pixels_of(run, upload)
            if pixels is None:
                return None, None, "", []
            if not run.calibrated:
                progress(None, desc=f"looking at what is normal: {run.normal_from}")
            found = detect(run, pixels)
        except ValueError as error:
            gr.Warning(str(error), title="Refused", duration=10)
            return None, None, f"**Refused**: {error}", []
        return shown(found.given), shown(found.overlay), _verdict(run, found), [shown(image) for image in found.images]

    picture.change(
        answer,
        picture,
        [given, overlay, verdict, images],
        show_progress_on=images,
        **{**COMPUTING, "show_progress": "full"},
    )


def _verdict(run: OpenRun, found: Finding) -> str:
    is_anomaly = found.score > found.threshold
    share = run.calibrated[0].facts["false_alarms"]
    return (
        f"### {'Not normal' if is_anomaly else 'Normal'}: score {found.score:.2f}, threshold {found.threshold:.2f}\n"
        f"About {share:.0%} of normal pictures are above it. "
        "Scores count in standard deviations of normal pictures."
        + (" It is one of the normal pictures itself, and was judged by the others." if found.is_normal_one else "")
    )


def _sliders(asked: Sequence[tuple[str, int, int, int]]) -> list[gr.Slider]:
    """Side by side: (label, least, most, value) each."""
    with gr.Row():
        return [
            gr.Slider(
                least,
                most,
                value=value,
                step=1,
                label=label,
                min_width=120,
                buttons=[],
                elem_id=f"blend-{label.lower()}",
            )
            for label, least, most, value in asked
        ]


def _buttons(name: str) -> tuple[gr.Button, gr.Button]:
    with gr.Row():
        again = gr.Button("Draw", variant="primary", elem_id=f"{name}-draw", min_width=100)
        stop = gr.Button("Stop", elem_id=f"{name}-stop", min_width=100)
    return again, stop


def _outputs(given: str, noised: str, images: str, name: str) -> list[Any]:
    look: dict[str, Any] = {"interactive": False, "format": "png", "buttons": []}
    with gr.Row():
        first = gr.Image(label=given, height=200, elem_id=f"{name}-given", elem_classes="pixels", min_width=140, **look)
        second = gr.Image(
            label=noised, height=200, elem_id=f"{name}-noised", elem_classes="pixels", min_width=140, **look
        )
    gallery = gr.Gallery(
        label=images, columns=4, height="auto", object_fit="contain", elem_id=f"{name}-images",
        elem_classes="pixels results", **look,
    )  # fmt: skip
    command = gr.Markdown(elem_id=f"{name}-command", elem_classes="command")
    return [first, second, gallery, command]


def _shown(asked: Callable[[], Answer | None]) -> tuple[Any, Any, list[np.ndarray], str]:
    """An answer as the values of `_outputs`; of a mistake of the user's, the reason, and no pictures."""
    try:
        answer = asked()
    except (ValueError, AskedToStop) as error:
        title = "Stopped" if isinstance(error, AskedToStop) else "Refused"
        gr.Warning(str(error) or "by you", title=title, duration=10)
        return None, None, [], f"**{title}**: {error}" if str(error) else f"**{title}**"
    if answer is None:
        return None, None, [], ""
    return (
        shown(answer.given), shown(answer.noised), [shown(image) for image in answer.images],
        f"The same from the command line, with IMAGE a file: `{answer.command}`",
    )  # fmt: skip


def _wire(
    answer: Callable[..., Any],
    pictures: list[Any],
    numbers: list[Any],
    outputs: list[Any],
    again: gr.Button,
    stop: gr.Button,
    stops: Stops,
) -> None:
    """A change of any input asks anew; the last question counts."""

    def ask(request: gr.Request, progress: gr.Progress = gr.Progress(), *values: Any) -> Any:  # noqa: B008
        return answer(*values, request=request, progress=progress)

    triggers = [again.click, *(component.change for component in [*pictures, *numbers])]
    gr.on(triggers, ask, [*pictures, *numbers], outputs, show_progress_on=outputs[2], **COMPUTING)
    stop.click(stops.stop, None, None, queue=False, show_progress="hidden", **PRIVATE)
