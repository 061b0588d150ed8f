"""Pieces of the page: a picture that comes in, a canvas to draw on, the dials."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import gradio as gr
import numpy as np

from fastddpm.data.store import image_hash
from fastddpm.verbs.demo.answers import MAX_COUNT, Dials, Given, read_drawing, read_picture
from fastddpm.verbs.demo.opened_model import OpenRun

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""events without a page of an API"""


_PLAIN = [gr.themes.Font(name) for name in ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")]
_MONO = [gr.themes.Font(name) for name in ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")]
THEME = gr.themes.Default(primary_hue="indigo", neutral_hue="slate", font=_PLAIN, font_mono=_MONO)
"""theme with fonts of the system: others would be fetched"""
STYLE = files("fastddpm.verbs.demo").joinpath("page.css").read_text()


OWN_CLASS, ANY_CLASS = -2, -1
"""beside the numbers of classes"""


@dataclass(frozen=True)
class Upload:
    """A file that came in."""

    path: str
    name: str
    """name that the user knows it by"""


def as_file(picture: gr.Image) -> gr.Image:
    """Have an image given on as a file, whose checks are ours. (No subclass: Gradio writes a stub beside the file of
    each.)"""

    def preprocess(payload: Any) -> Upload | None:
        return Upload(payload.path, payload.orig_name or "the picture") if payload and payload.path else None

    picture.preprocess = preprocess
    return picture


def shown(pixels: np.ndarray) -> np.ndarray:
    """(C, H, W) as a page shows it: (H, W, 3)."""
    return np.ascontiguousarray(np.broadcast_to(pixels.transpose(1, 2, 0), (*pixels.shape[1:], 3)))


def picture_input(run: OpenRun, label: str, name: str, height: int = 230, first: int = 0) -> gr.Image:
    """A place to drop a picture, above the run's own to click on.

    Args:
        first: which of the run's own is there to begin with, as far as there are as many.
    """
    examples = [shown(example) for example in run.examples.images]
    picture = as_file(
        gr.Image(
            examples[min(first, len(examples) - 1)] if examples else None,
            label=label,
            height=height,
            elem_id=name,
            elem_classes="pixels",
            image_mode=None,
            format="png",
            sources=["upload", "clipboard"],
            buttons=[],
        )
    )
    if examples:
        strip = gr.Gallery(
            [(example, None) for example in examples], label="or one held out", columns=min(len(examples), 5),
            height="auto", allow_preview=False, interactive=False, format="png",
            object_fit="contain", elem_id=f"{name}-examples", elem_classes="pixels strip", buttons=[],
        )  # fmt: skip

        def choose(event: gr.SelectData) -> np.ndarray:
            return examples[event.index]

        strip.select(choose, None, picture, queue=False, show_progress="hidden", **PRIVATE)
    return picture


def sketch_input(run: OpenRun, picture: gr.Image) -> None:
    """A canvas whose drawing becomes the picture after each stroke."""
    channels, height, width = run.image_shape
    scale = max(1, 280 // max(height, width))
    colour = '<input type="color" value="#ffffff" aria-label="colour">' if channels == 3 else ""
    sketch = gr.HTML(
        html_template=f'<canvas width="{width * scale}" height="{height * scale}"></canvas><div class="tools">'
        f'{colour}<input type="range" min="{scale}" max="{6 * scale}" value="{max(2, 5 * scale // 2)}" '
        'aria-label="width of the brush"><button type="button">Clear</button></div>',
        js_on_load=files("fastddpm.verbs.demo").joinpath("sketch.js").read_text(),
        elem_id="sketch",
        elem_classes="sketch",
    )

    def drawn(event: gr.EventData) -> np.ndarray:
        try:
            pixels = read_drawing(str(event.picture), run.image_shape)
        except ValueError as error:
            raise gr.Error(str(error), title="Refused", print_exception=False) from error
        run.given_out[image_hash(pixels)] = ("drawing.png", None)
        return shown(pixels)

    sketch.submit(drawn, None, picture, queue=False, show_progress="hidden", **PRIVATE)


def given_of(run: OpenRun, upload: Upload | None) -> Given | None:
    """Picture that came in; None: nothing did."""
    if upload is None:
        return None
    as_it_is = read_picture(upload.path, run.fitting, upload.name, keeps_size=True)
    if (known := run.given_out.get(image_hash(as_it_is.pixels))) is not None:
        return Given(as_it_is.pixels, *known)
    return read_picture(upload.path, run.fitting, upload.name)


@dataclass(frozen=True)
class DialInputs:
    """The components whose values become `Dials`, in this order."""

    start_timestep: gr.Slider
    count: gr.Slider
    seed: gr.Number
    class_label: gr.Dropdown
    guidance_scale: gr.Slider
    scheduler: gr.Dropdown
    steps: gr.Slider

    @property
    def all(self) -> list[Any]:
        return [
            self.start_timestep, self.count, self.seed, self.class_label, self.guidance_scale, self.scheduler,
            self.steps,
        ]  # fmt: skip


def dial_inputs(run: OpenRun, name: str) -> DialInputs:
    """The dial of t in front, the rest behind."""
    most, best = run.num_timesteps, run.best
    start = gr.Slider(
        0, most, value=round(0.4 * most), step=1, elem_id=f"{name}-dial", label="Start timestep t",
        info=f"0: the same image ... {most:,}: any image", buttons=[],
    )  # fmt: skip
    with gr.Row():
        count = gr.Slider(1, MAX_COUNT, value=8, step=1, label="Pictures", elem_id=f"{name}-count", buttons=[])
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id=f"{name}-seed", min_width=90)
    knows_any, scale = run.vary.null_class is not None, best.guidance_scale
    with gr.Accordion("Class, solver and steps" if run.class_names else "Solver and steps", open=False):
        with gr.Row(visible=bool(run.class_names)):
            label = gr.Dropdown(_classes(run), value=OWN_CLASS, label="Class", elem_id=f"{name}-class", min_width=120)
            guidance = gr.Slider(
                min(1, scale), max(5, scale), value=scale, step=0.1, label="Guidance towards it", visible=knows_any,
                elem_id=f"{name}-guidance", buttons=[],
            )  # fmt: skip
        with gr.Row():
            solver = gr.Dropdown(list(run.solvers), value=best.scheduler, label="Solver", min_width=120)
            num_steps = gr.Slider(
                1, most, value=min(best.num_inference_steps, most), step=1, label="Steps, at most t",
                elem_id=f"{name}-steps", buttons=[],
            )  # fmt: skip
    return DialInputs(start, count, seed, label, guidance, solver, num_steps)


def _classes(run: OpenRun) -> list[tuple[str, int]]:
    """Choices of a class, as (words, value)."""
    named = [
        (name if name == str(number) else f"{number} {name}", number) for number, name in enumerate(run.class_names)
    ]
    any_class = [("any class", ANY_CLASS)] if run.vary.null_class is not None else []
    return [("the picture's own, if known", OWN_CLASS), *any_class, *named]


def dials_of(values: tuple[Any, ...], *given: Given) -> Dials:
    """Dials from the values of `DialInputs.all`, and the pictures that they are for.

    Raises: ValueError: one that a browser would not send.
    """
    start, count, seed, label, guidance, scheduler, steps = values
    if None in (start, count, seed, label, guidance, steps):
        raise ValueError("a number is missing: fill in t, pictures, seed, guidance and steps")
    own = {picture.label for picture in given}
    known = own.pop() if len(own) == 1 else None
    return Dials(
        start_timestep=int(start), count=int(count), seed=int(seed), scheduler=str(scheduler),
        class_label={OWN_CLASS: known, ANY_CLASS: None}.get(int(label), int(label)),
        guidance_scale=float(guidance), num_inference_steps=int(steps),
    )  # fmt: skip
