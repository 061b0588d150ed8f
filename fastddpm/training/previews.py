"""The samples of each preview, kept as pixels, so that a picture over time can be made of all of them, also later."""

from pathlib import Path

import numpy as np

from fastddpm import report
from fastddpm.files import written

FIRST_PICTURE = "first.png"
"""the picture in previews/ that a run draws within its first minute"""


def save_preview(folder: Path, images_seen: int, samples: np.ndarray, seed: int, columns: int | None) -> Path:
    """Write a preview's pixels and its grid into `folder`/previews.

    Args:
        samples: (N, C, H, W), uint8, of the seeds from `seed` on.
        columns: of the grid.
    Returns: the grid's path.
    """
    previews = folder / "previews"
    with written(previews / f"{images_seen:012d}.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, images=samples, seed=seed)
    picture = previews / f"{images_seen:012d}.png"
    report.save_grid(samples, picture, columns=columns)
    return picture


def forget_later(folder: Path, images_seen: int) -> None:
    """Remove previews of times that the run has yet to reach: it went back, and will draw them again."""
    for path in (folder / "previews").glob("[0-9]*.*"):
        if path.stem.isdecimal() and int(path.stem) > images_seen:
            path.unlink()


def history(folder: Path, seed: int, most: int) -> list[tuple[int, np.ndarray]]:
    """(images seen, samples (N, C, H, W) uint8) of the previews of the seeds from `seed` on, in order of time.

    Args:
        most: of more previews so many, evenly chosen, are read: a long run's would fill the memory at each preview.
    """
    paths = [path for path in sorted((folder / "previews").glob("[0-9]*.npz")) if _stored(path, "seed") == seed]
    return [(int(path.stem), _stored(path, "images")) for path in (paths[i] for i in report.evenly(len(paths), most))]


def _stored(path: Path, name: str) -> np.ndarray:
    with np.load(path) as stored:  # reads what is asked for alone
        return stored[name]


def save_progress(folder: Path, seed: int) -> None:
    """Draw progress.png and progress.gif of the previews so far; nothing while there is only one."""
    times = history(folder, seed, report.MAX_FRAMES)
    if len(times) > 1:
        fewest = min(len(samples) for _, samples in times)
        times = [(images_seen, samples[:fewest]) for images_seen, samples in times]
        report.save_progress_sheet(times, folder / "progress.png")
        report.save_progress_gif(times, folder / "progress.gif")
