"""Files of a detection: a picture and a map of each image, detection.json, report.html."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastddpm.data.fit import Box, Placement
from fastddpm.data.sources.masks import is_normal
from fastddpm.files import write_json, written
from fastddpm.measures.auroc import Detection, detection
from fastddpm.measures.calibration import Calibration
from fastddpm.pipelines.anomaly import AnomalyOutput
from fastddpm.report.figures import heat, overlay, save_grid
from fastddpm.report.page_pieces import save_document
from fastddpm.verbs.detect.request import MAPS, PAGE, PICTURE_MAPS, PICTURES, RECORD, DetectRequest
from fastddpm.verbs.detect.truth import Truth

Rows = list[dict[str, Any]]
"""rows of images: place, image, kind, not_measured, score, kind_scores, is_anomaly, num_pixels, box, in_picture,
picture, map"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Inspection:
    """Images to be judged, and by what."""

    request: DetectRequest
    images: np.ndarray
    """(N, C, H, W), uint8"""
    placements: Sequence[Placement | None]
    """places in their pictures"""
    sources: Sequence[str]
    """origin of each"""
    names: Sequence[str]
    """names for its files"""
    kinds: Sequence[str | None] | None
    """kind of defect of each, or the name of what is normal"""
    truth: Truth | None
    calibration: Calibration
    made_from: dict[str, Any] | None
    """normal and known images it was made from; None: it was given"""


def put_images(inspection: Inspection, places: Sequence[int], found: AnomalyOutput) -> Rows:
    """Write the picture and the map of some images, and say what was found."""
    out, threshold = inspection.request.out, inspection.calibration.pixel_threshold
    each = len(found.reconstructions) // len(places)
    made = np.asarray(found.reconstructions * 255).round().astype(np.uint8) if each else None
    rows = []
    for i, place in enumerate(places):
        name, image = inspection.names[place], inspection.images[place]
        map_ = found.maps[i].numpy()
        given = [image] if made is None else [image, made[(i + 1) * each - 1]]
        marked = None if inspection.truth is None else inspection.truth.marked
        masks = [] if marked is None else [marked[place][None] * np.uint8(255)]
        judged = [heat(map_[None], threshold)[0], overlay(image[None], map_[None], threshold)[0]]
        drawn = np.stack([np.broadcast_to(x, (3, *x.shape[1:])) for x in (*given, *judged, *masks)])
        save_grid(drawn, out / PICTURES / f"{name}.png", columns=len(drawn), scale=max(1, round(140 / image.shape[2])))
        at = inspection.placements[place]
        _save_map(map_.astype(np.float32), out / MAPS / f"{name}.npy")
        if at is not None and inspection.request.map_size == "picture":
            _save_map(at.map_in_picture(map_), out / PICTURE_MAPS / f"{name}.npy")
        rows.append(
            {
                "place": place,
                "image": inspection.sources[place],
                "kind": None if inspection.kinds is None else inspection.kinds[place],
                "not_measured": None if inspection.truth is None else inspection.truth.left_out.get(place),
                "score": round(float(found.scores[i]), 4),
                "is_anomaly": bool(found.is_anomaly[i]),
                "is_calibrated_on": None if found.is_calibrated_on is None else bool(found.is_calibrated_on[i]),
                "kind_scores": {kind: round(float(of[i]), 4) for kind, of in found.kind_scores.items()},
                **(region := _region(found.regions[i].numpy())),
                "in_picture": at and _in_picture(at, region["box"]),
                "picture": f"{PICTURES}/{name}.png",
                "map": f"{MAPS}/{name}.npy",
            }
        )
    return rows


def _save_map(values: np.ndarray, place: Path) -> None:
    with written(place) as path, path.open("wb") as file:
        np.save(file, values)


def _in_picture(at: Placement, box: list[int] | None) -> dict[str, Any]:
    """The picture's own size, the part of it that was judged, its pixels a pixel of the model, and the box in them."""
    own = None if box is None else at.box_in_picture(Box(*box))
    return {
        "size": list(at.size),
        "cut": [round(side, 3) for side in at.cut],
        "scale": [round(factor, 4) for factor in at.scale],
        "box": None if own is None else [int(side) for side in own],
    }


def _region(inside: np.ndarray) -> dict[str, Any]:
    """Number of pixels above their threshold, and the box around them: top, left, height, width."""
    if not inside.any():
        return {"num_pixels": 0, "box": None}
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    box = [int(rows[0]), int(columns[0]), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1]
    return {"num_pixels": int(inside.sum()), "box": box}


def write(inspection: Inspection, rows: Rows, seconds: float) -> None:
    """The record and the page; says in a few lines what they hold."""
    request, calibration = inspection.request, inspection.calibration
    measured, probe = _measured(inspection, rows), calibration.probe
    kinds = sorted({kind for kind in inspection.kinds or () if kind is not None and not is_normal(kind)})
    by_kind = {kind: of for kind in kinds if (of := _measured(inspection, rows, kind)) is not None}
    public = [{name: value for name, value in row.items() if name != "place"} for row in rows]
    record: dict[str, Any] = {
        "model": request.model,
        "thresholds": {"image": calibration.image_threshold, "pixel": calibration.pixel_threshold},
        "calibration": {**calibration.facts, "made_from": inspection.made_from, "probe": asdict(probe)},
        "num_calibrated_on": None if rows[0]["is_calibrated_on"] is None else sum(r["is_calibrated_on"] for r in rows),
        "measured": None if measured is None else measured.row(),
        "measured_by_kind": {kind: of.row() for kind, of in by_kind.items()},
        "images": public,
    }
    write_json(request.out / RECORD, record)
    highest = sorted((row for row in public if not row["is_calibrated_on"]), key=lambda row: -row["score"])
    own, said = [row for row in public if row["is_calibrated_on"]], _of_calibration(public)
    above, below = ([row for row in highest if row["is_anomaly"] == kind] for kind in (True, False))
    numbers = [] if measured is None else _numbers(measured)
    of_kinds = [
        [f"{kind} ({of.num_anomalous})", *(value for _, value, _ in _numbers(of))] for kind, of in by_kind.items()
    ]
    notes = [*([said] if said else []), *(inspection.truth.notes if inspection.truth else ())]
    save_document(
        request.out / PAGE, "verbs/detect/page.html", **record, title=f"Anomalies: {Path(request.model).name}",
        state=f"{len(above):,} of {len(highest):,} images are above the threshold", folder=request.out, probe=probe,
        above=above, below=below, numbers=numbers, in_words=_in_words, own=own,
        notes=notes, of_kinds=of_kinds, has_masks=inspection.truth is not None and inspection.truth.marked is not None,
    )  # fmt: skip
    print(
        f"{len(above):,} of {len(highest):,} images are above the threshold, which "
        f"{calibration.facts['false_alarms']:.0%} of normal images pass ({len(rows) / seconds:.1f} images/s)"
    )
    if said:
        print(said)
    for name, value, interval in numbers:
        print(f"{name:>14} {value}  {interval}")
    for kind, *values in of_kinds:
        print(f"  {kind}: {', '.join(f'{name} {value}' for (name, _, _), value in zip(numbers, values, strict=True))}")
    print(f"report: {request.out / PAGE}")


def _of_calibration(rows: Rows) -> str:
    """Images that are not counted, and why."""
    if rows[0]["is_calibrated_on"] is None:
        return "the calibration is an older one and keeps no hashes: whether images are among its own cannot be known"
    if not (count := sum(row["is_calibrated_on"] for row in rows)):
        return ""
    return (
        f"{count:,} of {len(rows):,} images are among the normal or known ones of the calibration: each is scored "
        "without itself, and none of them is counted or measured"
    )


def _in_words(row: dict[str, Any]) -> str:
    kinds = ", ".join(f"{kind} {score:.1f}" for kind, score in row["kind_scores"].items())
    marked = f"; {row['num_pixels']:,} pixels marked" if row["num_pixels"] else ""
    return f"{row['image']}: {row['score']:.2f} ({kinds}){marked}"


def _measured(inspection: Inspection, rows: Rows, kind: str | None = None) -> Detection | None:
    """Against the truth, if there is any.

    Args:
        kind: of defects; with it, all normal images and those of the kind, without intervals.
    """
    truth, request = inspection.truth, inspection.request
    if truth is None:
        return None
    fresh = [row for row in rows if not row["is_calibrated_on"] and row["not_measured"] is None]
    fresh = [row for row in fresh if kind is None or row["kind"] == kind or not truth.is_anomalous[row["place"]]]
    places = [row["place"] for row in fresh]
    is_anomalous = truth.is_anomalous[places]
    if is_anomalous.all() or not is_anomalous.any():
        return None
    masks = None if truth.marked is None else truth.marked[places]
    maps = None if masks is None else np.stack([np.load(request.out / row["map"]) for row in fresh])
    return detection(
        np.array([row["score"] for row in fresh]), is_anomalous, maps, masks,
        resamples=request.resamples if kind is None else 0, seed=inspection.calibration.probe.seed,
    )  # fmt: skip


_NAMES = {
    "image_auroc": "image AUROC", "image_ap": "image AP", "pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP",
    "pro": "PRO",
}  # fmt: skip


def _numbers(measured: Detection) -> list[tuple[str, str, str]]:
    """(name, value, 95 % interval) of each number."""
    found = []
    for field, name in _NAMES.items():
        if (value := getattr(measured, field)) is None:
            continue
        low, high = measured.intervals.get(field, (None, None))
        interval = "" if low is None else f"{low:.3f} to {high:.3f}"
        found.append((name, f"{value:.3f}", interval))
    return found
