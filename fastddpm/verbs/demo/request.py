"""Request of `fastddpm demo`."""

from typing import Annotated

from pydantic import Field

from fastddpm.config.bounded_types import Count, strict
from fastddpm.config.checks import SamplerName

PORT = 7860
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@strict
class DemoRequest:
    """Serve a page for a model, on this machine: drop or draw an image, turn the dial of t, see its variations; blend
    two images with a box; see where an image is not normal. Needs Gradio: pip install 'fastddpm[demo]'."""

    model: str
    """Run folder, finished or not, or a saved pipeline."""
    host: str = "127.0.0.1"
    """Address to listen on; others than loopback let anyone in."""
    port: Annotated[int, Field(ge=0, le=65535)] = PORT
    """Port to listen on; 0: any that is free."""
    scheduler: SamplerName | None = None
    """Solver that the page begins with; null: the run's own. All may be chosen there."""
    num_inference_steps: Count | None = None
    """Reverse steps that the page begins with, at most as many as the start; null: the run's own."""
    normal: str | None = None
    """Normal images for the anomaly map: any data.source that the model was not trained on; null: the run's held-out
    ones."""
    num_threads: Count | None = None
    """CPU threads; null: all cores."""
