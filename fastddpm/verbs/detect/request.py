"""What `fastddpm detect` is asked for."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastddpm.config import SamplerName
from fastddpm.measures.calibration import MIN_NORMAL


@dataclass(frozen=True, kw_only=True)
class DetectRequest:
    """Each field is an option of the command line, where it has its meaning."""

    model: str
    images: Sequence[str]
    out: Path
    normal: str | None = None
    calibration: Path | None = None
    num_normal: int = 200
    known: str | None = None
    num_known: int = 800
    false_alarms: float | None = None
    masks: Path | None = None
    start_timesteps: Sequence[int] | None = None
    num_noises: int | None = None
    reconstruct_from: Sequence[int] | None = None
    scheduler: SamplerName | None = None
    num_inference_steps: int | None = None
    kinds: Sequence[str] | None = None
    seed: int | None = None
    resamples: int = 200
    micro_batch_size: int = 64
    num_processes: int | None = None
    num_threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("micro_batch_size", "num_processes", "num_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.resamples < 0:
            raise ValueError(f"resamples is {self.resamples}; it must be at least 0 (no intervals)")
        if self.num_normal < MIN_NORMAL:
            raise ValueError(f"num_normal is {self.num_normal}; calibration takes at least {MIN_NORMAL} normal images")
        if self.num_known < 0:
            raise ValueError(f"num_known is {self.num_known}; it must be at least 0 (none beside the normal images)")
        if self.known is not None and self.kinds is not None and "feature" not in self.kinds:
            raise ValueError(
                f"got --known and --kinds {' '.join(self.kinds)}; only the kind feature compares with known images: "
                "ask for it too, or leave --known out"
            )
        if self.false_alarms is not None and not 0 < self.false_alarms < 1:
            raise ValueError(f"false_alarms is {self.false_alarms}; it is a share of normal images, between 0 and 1")
        fixed = [name for name in ("normal", "known", "false_alarms", *_OF_PROBE) if getattr(self, name) is not None]
        if self.calibration is not None and fixed:
            raise ValueError(
                f"got --calibration and {', '.join(fixed)}, which a calibration has settled; leave them out, or "
                "calibrate anew without --calibration"
            )

    def settings_of_probe(self) -> dict[str, Any]:
        """Fields of `Probe` that were asked for."""
        asked = {name: getattr(self, name) for name in _OF_PROBE}
        return {
            name: tuple(value) if isinstance(value, list | tuple) else value
            for name, value in asked.items()
            if value is not None
        }

    def check_writable(self) -> None:
        """Raises: ValueError: what lies at `out` is no folder, or holds other things than a detection or its parts."""
        if self.out.is_file():
            raise ValueError(f"--out is {self.out}, a file; wanted a folder")
        others = [path.name for path in self.out.glob("*") if path.name.lstrip(".").removesuffix(".tmp") not in FILES]
        if others:
            raise ValueError(
                f"{self.out} holds other things than a detection ({', '.join(sorted(others)[:3])}); choose another "
                "--out, or empty it"
            )

    def clear(self) -> None:
        """Remove what an earlier detection left at `out`, but for its calibration, which may be asked for here."""
        for folder in (PICTURES, MAPS):
            shutil.rmtree(self.out / folder, ignore_errors=True)
        for name in (RECORD, PAGE):
            (self.out / name).unlink(missing_ok=True)


RECORD, PAGE, PICTURES, MAPS, CALIBRATION = (
    "detection.json", "report.html", "pictures", "maps", "calibration.safetensors",
)  # fmt: skip
FILES = (RECORD, PAGE, PICTURES, MAPS, CALIBRATION)
"""in `out`; with a dot before them while they are written"""
_OF_PROBE = ("start_timesteps", "num_noises", "reconstruct_from", "num_inference_steps", "kinds", "seed")
