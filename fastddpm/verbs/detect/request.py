"""Request of `fastddpm detect`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fastddpm.config.bounded_types import Count, File, Part, Several, Whole, strict
from fastddpm.config.checks import MIN_NORMAL
from fastddpm.files import aside, place_of_lock, remove
from fastddpm.verbs.sample.request import Processes


@strict
class DetectRequest(Processes):
    """Judge images by a model of normal ones: a score and a map each, a threshold from normal images that were not
    trained on; pictures, masks, detection.json, results.csv and report.html."""

    model: str
    """Run folder (also one still training), saved pipeline, or id on the Hub."""
    images: Several[str] | None = None
    """Image files, any data.source, or RUN:held_out; or rows of them: SOURCE#0:8; null: with `suspects` only."""
    out: File
    """Folder for pictures, maps, JSON and a page."""
    normal: str | None = None
    """Normal images that were not trained on, any data.source; null: RUN:held_out."""
    num_normal: Annotated[int, Field(ge=MIN_NORMAL)] = 200
    """Maximum number of normal images."""
    known: str | None = None
    """Other normal images to compare with, any data.source; null: RUN:train, unless `normal` is given."""
    num_known: Whole = 2000
    """Maximum number of known images; 0: none."""
    suspects: bool = False
    """Judge what the run was trained on and held out instead, each without itself: the oddest come first."""
    false_alarms: Part | None = None
    """Share of fresh normal images above the threshold, at most; null: 0.05."""
    calibration: File | None = None
    """calibration.safetensors of an earlier detection, instead of normal images."""
    masks: File | None = None
    """Folder of masks named as the images, to measure how well it does; null: those in the images' own folders."""
    start_timesteps: Several[Count] | None = None
    """Timesteps at which images are looked at, one forward pass each; null: 50 300 of 1000."""
    map_size: Literal["model", "picture"] = "model"
    """Size of maps; picture: also one in each picture's own pixels, NaN where it is cut off, in picture_maps."""
    resamples: Whole = 200
    """Resamples of the bootstrap, with masks; 0: no intervals."""

    def __post_init__(self) -> None:
        if self.suspects == (self.images is not None):
            raise ValueError("wanted either images to judge or --suspects, which judges the run's own")
        fixed = [
            name for name in ("normal", "known", "false_alarms", "start_timesteps") if getattr(self, name) is not None
        ]
        if self.calibration is not None and fixed:
            raise ValueError(
                f"got --calibration and --{', --'.join(fixed)}, which a calibration has settled; leave them out, or "
                "calibrate anew without --calibration"
            )

    def check_writable(self) -> None:
        """Raises: ValueError: what lies at `out` is no folder, or holds other things than a detection or its parts."""
        if self.out.is_file():
            raise ValueError(f"--out is {self.out}, a file; wanted a folder")
        ours = {*FILES, *(aside(Path(name)).name for name in FILES), place_of_lock(self.out).name}
        others = [path.name for path in self.out.glob("*") if path.name not in ours]
        if others:
            raise ValueError(
                f"{self.out} holds other things than a detection ({', '.join(sorted(others)[:3])}); choose another "
                "--out, or empty it"
            )

    def clear(self) -> None:
        """Remove what an earlier detection left at `out`, but for its calibration, which may be asked for here."""
        for name in FILES[:-1]:
            remove(self.out / name)


FILES = RECORD, TABLE, PAGE, PICTURES, MAPS, MASKS, PICTURE_MAPS, CALIBRATION = (
    "detection.json", "results.csv", "report.html", "pictures", "maps", "masks", "picture_maps",
    "calibration.safetensors",
)  # fmt: skip
"""files in `out`"""
