"""`fastddpm demo`."""

import argparse
from typing import Any, get_args

from fastddpm.config import SamplerName


def add_demo(verbs: Any) -> None:
    """The verb and its options."""
    demo = verbs.add_parser("demo", help="a page in the browser for your model", description=demo_command.__doc__)
    demo.set_defaults(verb=demo_command)
    demo.add_argument("model", metavar="RUN", help="a run folder, finished or not, or a saved pipeline")
    demo.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; others than loopback let anyone in (127.0.0.1)"
    )
    demo.add_argument("--port", type=int, default=7860, help="0: any that is free (7860)")
    demo.add_argument(
        "--normal", metavar="DATA",
        help="normal images, for the anomaly map: any data.source that it was not trained on; left out: those held out",
    )  # fmt: skip
    demo.add_argument(
        "--scheduler",
        choices=get_args(SamplerName),
        default="dpmsolver++",
        help="the page's first choice (dpmsolver++)",
    )
    demo.add_argument("--num_inference_steps", type=int, default=20, help="likewise (20)")
    demo.add_argument("--num_threads", type=int, help="CPU threads; left out: all cores")


def demo_command(parsed: argparse.Namespace) -> None:
    """Serve a page for a model, on this machine: drop or draw an image, turn the dial of t, see its variations; blend
    two images with a box; see where an image is not normal. Needs Gradio: pip install 'fastddpm[demo]'."""
    from fastddpm.verbs.demo.request import DemoRequest
    from fastddpm.verbs.demo.serve_page import demo

    demo(DemoRequest(**{name: value for name, value in vars(parsed).items() if name != "verb"}))
