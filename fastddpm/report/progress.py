"""Samples of the same seeds as training goes on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fastddpm.files import written
from fastddpm.report.figures import grid, save_labelled_rows

MAX_ROWS = 12
MAX_COLUMNS = 10
MAX_FRAMES = 60
FRAME_MS = 300
LAST_FRAME_MS = 3000


def save_progress_sheet(times: Sequence[tuple[int, np.ndarray]], path: Path) -> None:
    """Draw one row per time, labelled with the images seen until then, and one column per seed.

    Args:
        times: (images seen, samples (N, C, H, W) uint8), in order of time, the same seeds each time; at least one.
            Of many, some are drawn, evenly chosen, the first and the last among them.
    """
    chosen = [times[i] for i in evenly(len(times), MAX_ROWS)]
    rows = [(f"{images_seen:,} images", samples[:MAX_COLUMNS]) for images_seen, samples in chosen]
    save_labelled_rows(rows, path, scale=max(1, round(64 / rows[0][1].shape[-1])))


def save_progress_gif(times: Sequence[tuple[int, np.ndarray]], path: Path) -> None:
    """The same as frames of an animation that repeats: the whole grid at each time, the last one held.

    Args:
        times: as in `save_progress_sheet`.
    """
    frames = [_frame(*times[i]) for i in evenly(len(times), MAX_FRAMES)]
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    with written(path) as temporary:
        frames[0].save(temporary, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of range(count), evenly spread, the first and the last included."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def _frame(images_seen: int, samples: np.ndarray) -> Image.Image:
    drawn = grid(samples, scale=max(1, round(400 / (np.ceil(np.sqrt(len(samples))) * samples.shape[-1]))))
    frame = Image.new("RGB", (drawn.width, drawn.height + 18), (255, 255, 255))
    frame.paste(drawn, (0, 18))
    ImageDraw.Draw(frame).text((4, 3), f"{images_seen:,} images", fill=(40, 40, 40))
    return frame
