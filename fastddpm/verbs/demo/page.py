"""The page: what is where, and which question each dial asks."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from fastddpm.verbs.demo.answers import Answer, AskedToStop, Finding, Given, OnStep, blend, detect, vary
from fastddpm.verbs.demo.opened_model import OpenRun
from fastddpm.verbs.demo.parts import PRIVATE, dial_inputs, dials_of, given_of, picture_input, shown, sketch_input
from fastddpm.verbs.demo.readers import Readers

COMPUTING: dict[str, Any] = {
    "concurrency_id": "model", "concurrency_limit": 1, "trigger_mode": "always_last", **PRIVATE,
}  # fmt: skip
"""one answer at a time; of the questions that come meanwhile, the last one of each page is answered"""

Compute = Callable[[list[Given], tuple[Any, ...], OnStep], list[Any]]
"""(pictures, values of the dials, told of each step) -> values of a tab's outputs"""


def page_of(run: OpenRun, readers: Readers) -> gr.Blocks:
    """The page of a run."""
    with gr.Blocks(title=f"{run.name}: fastddpm", analytics_enabled=False) as page:
        gr.Markdown(f"# {run.name}\n{run.facts}", elem_classes="facts")
        with gr.Tab("Variations"):
            _variations(run, readers, page.load)
        with gr.Tab("Blend") as tab:
            _blends(run, readers, tab.select)
        with gr.Tab("Anomaly") as tab:
            _anomalies(run, readers, tab.select)
    page.queue(max_size=64, api_open=False)
    return page


def _variations(run: OpenRun, readers: Readers, opened: Any) -> None:
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            with gr.Tab("A picture"):
                picture = picture_input(run, "Drop a picture here", "vary-picture")
            with gr.Tab("Draw one"):
                sketch_input(run, picture)
            dials = dial_inputs(run, "vary")
        with gr.Column(scale=6, min_width=300):
            outputs, buttons = _outputs("As the model takes it", "Noised to t", "Variations", "Draw", "vary")

    def compute(given: list[Given], values: tuple[Any, ...], on_step: OnStep) -> list[Any]:
        return _shown(vary(run, given[0], dials_of(values, *given), on_step))

    _wire(run, readers, "vary", compute, [picture], dials.all, outputs, buttons, opened)


def _blends(run: OpenRun, readers: Readers, opened: Any) -> None:
    _, height, width = run.image_shape
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            with gr.Row():
                with gr.Column(min_width=140):
                    one = picture_input(run, "A picture", "blend-one", 170)
                with gr.Column(min_width=140):
                    other = picture_input(run, "Its partner", "blend-other", 170, first=1)
            gr.Markdown("The box that comes from the partner, in pixels:", elem_classes="facts")
            box = [
                slider
                for pair in ((("Top", 0, height - 1, 0), ("Left", 0, width - 1, width // 2)),
                             (("Height", 1, height, height), ("Width", 1, width, width - width // 2)))
                for slider in _sliders(pair)
            ]  # fmt: skip
            dials = dial_inputs(run, "blend")
        with gr.Column(scale=6, min_width=300):
            outputs, buttons = _outputs("The paste", "Noised to t", "Blends", "Draw", "blend")

    def compute(given: list[Given], values: tuple[Any, ...], on_step: OnStep) -> list[Any]:
        box, dials = [int(x) for x in values[:4]], dials_of(values[4:], *given)
        return _shown(blend(run, given[0], given[1], box, dials, on_step))

    _wire(run, readers, "blend", compute, [one, other], [*box, *dials.all], outputs, buttons, opened)


def _anomalies(run: OpenRun, readers: Readers, opened: Any) -> None:
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            picture = picture_input(run, "Drop a picture here", "anomaly-picture")
            gr.Markdown(
                f"Normal: {run.normal_from}. The first answer takes the time to look at them.", elem_classes="facts"
            )
        with gr.Column(scale=6, min_width=300):
            outputs, buttons = _outputs("As the model takes it", "Where it is not normal", None, "Judge", "anomaly")

    def compute(given: list[Given], _: tuple[Any, ...], on_step: OnStep) -> list[Any]:
        found = detect(run, given[0], on_step)
        return [shown(found.given), shown(found.overlay), [], _verdict(run, found)]

    _wire(run, readers, "anomaly", compute, [picture], [], outputs, buttons, opened)


def _verdict(run: OpenRun, found: Finding) -> str:
    is_anomaly = found.score > found.threshold
    share = run.calibrated[0].facts["false_alarms"]
    return (
        f"### {'Not normal' if is_anomaly else 'Normal'}: score {found.score:.2f}, threshold {found.threshold:.2f}\n"
        f"{found.p_value:.2g} of normal pictures are that far; at most {share:.0%} pass the threshold. "
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


def _outputs(
    first: str, second: str, images: str | None, verb: str, name: str
) -> tuple[list[Any], tuple[gr.Button, gr.Button]]:
    """Two pictures, many pictures if they have a title, and words; and the buttons that ask and stop."""
    look: dict[str, Any] = {"interactive": False, "format": "png", "buttons": []}
    with gr.Row():
        pair = [
            gr.Image(label=label, height=200, elem_id=f"{name}-{part}", elem_classes="pixels", min_width=140, **look)
            for label, part in ((first, "given"), (second, "noised"))
        ]
    with gr.Row():
        again = gr.Button(verb, variant="primary", size="md", elem_id=f"{name}-draw", min_width=100)
        stop = gr.Button("Stop", size="md", elem_id=f"{name}-stop", min_width=100)
    gallery = gr.Gallery(
        label=images, columns=4, height="auto", object_fit="contain", elem_id=f"{name}-images",
        elem_classes="pixels results", visible=images is not None, **look,
    )  # fmt: skip
    return [*pair, gallery, gr.Markdown(elem_id=f"{name}-words", elem_classes="command")], (again, stop)


def _shown(answer: Answer) -> list[Any]:
    """Values of `_outputs`."""
    return [
        shown(answer.given), shown(answer.noised), [shown(image) for image in answer.images],
        f"The same from the command line:\n```bash\n{answer.command}\n```",
    ]  # fmt: skip


def _wire(
    run: OpenRun,
    readers: Readers,
    tab: str,
    compute: Compute,
    pictures: list[Any],
    numbers: list[Any],
    outputs: list[Any],
    buttons: tuple[gr.Button, gr.Button],
    opened: Any,
) -> None:
    """A change of any input asks anew, as `opened` does; the last question counts, and none is answered twice in a
    row: a browser tells a change too of pictures that it only begins to show."""
    answered = gr.State(None)

    def ask(before: Any, progress: gr.Progress = gr.Progress(), *values: Any) -> Any:  # noqa: B008
        if values == before:
            return gr.skip()
        try:
            on_step = readers.on_step(tab, progress)
            given = [given_of(run, upload) for upload in values[: len(pictures)]]
            there = [picture for picture in given if picture is not None]
            if len(there) < len(given):
                return [None, None, [], "", None]
            return [*compute(there, values[len(pictures) :], on_step), values]
        except (ValueError, AskedToStop) as error:
            title = "Stopped" if isinstance(error, AskedToStop) else "Refused"
            gr.Warning(str(error) or "by you", title=title, duration=10)
            return [None, None, [], f"**{title}**: {error}" if str(error) else f"**{title}**", None]

    def stop(request: gr.Request) -> None:
        readers.stop(tab, str(request.session_hash))

    triggers = [opened, buttons[0].click, *(component.change for component in [*pictures, *numbers])]
    gr.on(
        triggers, ask, [answered, *pictures, *numbers], [*outputs, answered], show_progress_on=outputs[1:3], **COMPUTING
    )
    buttons[1].click(stop, None, None, queue=False, show_progress="hidden", **PRIVATE)
