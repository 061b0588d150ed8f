"""Files of a detection: a picture, a map and a mask of each image, detection.json, results.csv, report.html."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastddpm.data.fit import Box, Placement
from fastddpm.data.sources.masks import is_normal
from fastddpm.files import write_json, write_text, written
from fastddpm.measures.auroc import Detection, detection
from fastddpm.measures.calibration import Calibration
from fastddpm.measures.conformal import MAX_FALSE_CHANGES, drift, q_values
from fastddpm.pipelines.anomaly import AnomalyOutput
from fastddpm.report.figures import heat, overlay, save_grid
from fastddpm.report.page_pieces import save_document
from fastddpm.verbs.detect.request import (
    MAPS,
    MASKS,
    PAGE,
    PICTURE_MAPS,
    PICTURES,
    RECORD,
    TABLE,
    DetectRequest,
)
from fastddpm.verbs.detect.truth import Truth

Rows = list[dict[str, Any]]
"""rows of images: place, image, kind, is_anomalous, not_measured, score, p_value, is_anomaly, is_calibrated_on,
num_pixels, box, in_picture, picture, map, mask; and of those that are counted q_value"""


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
    mask_names: Sequence[str]
    """names for its mask, in folders as the images are"""
    kinds: Sequence[str | None] | None
    """kind of defect of each, or the name of what is normal"""
    truth: Truth | None
    calibration: Calibration
    made_from: dict[str, Any] | None
    """normal and known images it was made from; None: it was given"""


def put_images(inspection: Inspection, places: Sequence[int], found: AnomalyOutput) -> Rows:
    """Write the picture, the map and the mask of some images, and say what was found."""
    out, threshold, truth = inspection.request.out, inspection.calibration.pixel_threshold, inspection.truth
    rows = []
    for i, place in enumerate(places):
        name, image = inspection.names[place], inspection.images[place]
        map_, kind = found.maps[i].numpy(), None if inspection.kinds is None else inspection.kinds[place]
        masks = [] if truth is None or truth.marked is None else [truth.marked[place][None] * np.uint8(255)]
        judged = [heat(map_[None], threshold)[0], overlay(image[None], map_[None], threshold)[0]]
        drawn = np.stack([np.broadcast_to(x, (3, *x.shape[1:])) for x in (image, *judged, *masks)])
        save_grid(drawn, out / PICTURES / f"{name}.png", columns=len(drawn), scale=max(1, round(140 / image.shape[2])))
        at = inspection.placements[place]
        _save_map(map_.astype(np.float32), out / MAPS / f"{name}.npy")
        own_map = None if at is None else at.map_in_picture(map_)
        if own_map is not None and inspection.request.map_size == "picture":
            _save_map(own_map, out / PICTURE_MAPS / f"{name}.npy")
        mask = None if kind is not None and is_normal(kind) else f"{MASKS}/{inspection.mask_names[place]}"
        if mask is not None:
            marked = (map_ if own_map is None else own_map) > threshold
            with written(out / mask) as path:
                Image.fromarray(marked * np.uint8(255)).save(path, format="PNG")
        rows.append(
            {
                "place": place,
                "image": inspection.sources[place],
                "kind": kind,
                "is_anomalous": None if truth is None or place in truth.left_out else bool(truth.is_anomalous[place]),
                "not_measured": None if truth is None else truth.left_out.get(place),
                "score": round(float(found.scores[i]), 4),
                "p_value": float(found.p_values[i]),
                "is_anomaly": bool(found.is_anomaly[i]),
                "is_calibrated_on": bool(found.is_calibrated_on[i]),
                **(region := _region(found.regions[i].numpy())),
                "in_picture": at and _in_picture(at, region["box"]),
                "picture": f"{PICTURES}/{name}.png",
                "map": f"{MAPS}/{name}.npy",
                "mask": mask,
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
    """The record, the table and the page; says in a few lines what they hold."""
    request, calibration = inspection.request, inspection.calibration
    if request.suspects:
        rows = sorted(rows, key=lambda row: -row["score"])
    measured = _measured(inspection, rows)
    kinds = sorted({kind for kind in inspection.kinds or () if kind is not None and not is_normal(kind)})
    by_kind = {kind: of for kind in kinds if (of := _measured(inspection, rows, kind)) is not None}
    public = [{name: value for name, value in row.items() if name != "place"} for row in rows]
    own = [row for row in public if row["is_calibrated_on"] and not request.suspects]
    fresh = [row for row in public if request.suspects or not row["is_calibrated_on"]]
    for row, q in zip(fresh, q_values(np.array([row["p_value"] for row in fresh])), strict=True):
        row["q_value"] = float(q)
    change = None if request.suspects or inspection.truth is not None else _change(fresh, calibration)
    record: dict[str, Any] = {
        "model": request.model,
        "thresholds": {"image": calibration.image_threshold, "pixel": calibration.pixel_threshold},
        "calibration": {
            **calibration.facts, "start_timesteps": calibration.start_timesteps, "made_from": inspection.made_from
        },
        "num_calibrated_on": len(own),
        "change": change,
        "flagged_by_kind": _flagged(fresh),
        "measured": None if measured is None else measured.row(),
        "measured_by_kind": {kind: of.row() for kind, of in by_kind.items()},
        "images": public,
    }  # fmt: skip
    write_json(request.out / RECORD, record)
    _write_table(request.out / TABLE, public)
    numbers = [] if measured is None else _numbers(measured)
    of_kinds = [
        [f"{kind} ({of.num_anomalous})", *(value for _, value, _ in _numbers(of))] for kind, of in by_kind.items()
    ]
    said = _said(record, fresh)
    notes = [*said[1:], *(inspection.truth.notes if inspection.truth else ())]
    save_document(
        request.out / PAGE, "verbs/detect/page.html", **record, title=f"Anomalies: {Path(request.model).name}",
        state=said[0], folder=request.out, numbers=numbers, in_words=_in_words, notes=notes, of_kinds=of_kinds,
        parts=_parts(fresh, own), above=sum(row["is_anomaly"] for row in fresh), num_fresh=len(fresh),
        has_masks=inspection.truth is not None and inspection.truth.marked is not None,
        judged=[[row["score"], {None: -1, False: 0, True: 1}[row["is_anomalous"]]] for row in fresh],
        normal=sorted(calibration.group_scores.tolist()),
    )  # fmt: skip
    print(f"{said[0]} ({len(rows) / seconds:.1f} images/s)", *said[1:], sep="\n")
    if request.suspects:
        print("oddest first:", *map(_in_words, public[:10]), sep="\n  ")
    for name, value, interval in numbers:
        print(f"{name:>14} {value}  {interval}")
    for kind, *values in of_kinds:
        print(f"  {kind}: {', '.join(f'{name} {value}' for (name, _, _), value in zip(numbers, values, strict=True))}")
    print(f"report: {request.out / PAGE}")


def _change(fresh: Rows, calibration: Calibration) -> dict[str, Any]:
    """Place where images, in their order, became less normal."""
    scores = np.array([row["score"] for row in fresh], dtype=np.float64)
    found = drift(scores, calibration.group_scores.double().numpy())
    by, since = (None if place is None else fresh[place]["image"] for place in (found.changed_by, found.changed_from))
    return {"evidence": round(found.evidence, 3), "changed_by": by, "changed_from": since}


def _flagged(fresh: Rows) -> dict[str, dict[str, int]]:
    """Number of images of each kind, and of those above the threshold."""
    found: dict[str, dict[str, int]] = {}
    for row in fresh:
        if row["kind"] is not None:
            of = found.setdefault(row["kind"], {"images": 0, "flagged": 0})
            of["images"], of["flagged"] = of["images"] + 1, of["flagged"] + row["is_anomaly"]
    return dict(sorted(found.items()))


_COLUMNS = (
    "image", "kind", "is_anomalous", "is_anomaly", "score", "p_value", "q_value", "num_pixels", "is_calibrated_on",
    "mask",
)  # fmt: skip


def _write_table(path: Path, rows: Rows) -> None:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def _parts(fresh: Rows, own: Rows) -> list[tuple[str, Rows]]:
    """Title and rows of each part of the page: what the threshold gets wrong comes first, the worst at the top."""
    parts: dict[str, Rows] = {title: [] for title in ("Missed", "False alarms", "Above the threshold", "Below it")}
    for row in sorted(fresh, key=lambda row: -row["score"]):
        title = "Above the threshold" if row["is_anomaly"] else "Below it"
        if row["is_anomalous"] is not None and row["is_anomalous"] != row["is_anomaly"]:
            title = "Missed" if row["is_anomalous"] else "False alarms"
        parts[title].append(row)
    parts["Missed"].reverse()
    return [*parts.items(), ("Of the calibration, not counted", sorted(own, key=lambda row: -row["score"]))]


def _said(record: dict[str, Any], fresh: Rows) -> list[str]:
    """Findings in sentences."""
    rows, allowed, change = record["images"], record["calibration"]["false_alarms"], record["change"]
    share = f"{100 * allowed:.3g} %"
    above = sum(row["is_anomaly"] for row in fresh)
    said = [f"{above:,} of {len(fresh):,} images are above the threshold, which at most {share} of normal ones pass"]
    if sure := sum(row["q_value"] <= allowed for row in fresh):
        said.append(f"{sure:,} of them may be called anomalous with at most {share} of these false (q_value)")
    if change and change["changed_by"] is not None:
        said.append(
            f"normal has changed: from about {change['changed_from']} on images are less normal, as told by "
            f"{change['changed_by']}; {MAX_FALSE_CHANGES:.0%} of rows of normal images are called so, at most"
        )
    if own := len(rows) - len(fresh):
        said.append(
            f"{own:,} of {len(rows):,} images are among the normal or known ones of the calibration: each is scored "
            "without itself, and none of them is counted or measured"
        )
    return said


def _in_words(row: dict[str, Any]) -> str:
    marked = f"; {row['num_pixels']:,} pixels marked" if row["num_pixels"] else ""
    return f"{row['image']}: {row['score']:.2f}, p {row['p_value']:.2g}{marked}"


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
        resamples=request.resamples if kind is None else 0,
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
