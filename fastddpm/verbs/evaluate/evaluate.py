"""`fastddpm evaluate`: samples against real images, with a floor beside each score, and a look for copies."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from fastddpm.agreement import working
from fastddpm.config.runs import is_run, run_folder
from fastddpm.data.named_pictures import Fitting, NamedImages, classes_in, named_images, run_in
from fastddpm.files import write_json
from fastddpm.measures.fidelity import Scores, beside_floor, floor, scores
from fastddpm.measures.nearest import nearest_distances
from fastddpm.training.near_copies import MAX_TRAINING, Originals
from fastddpm.verbs.evaluate.feature_space import FeatureSpace
from fastddpm.verbs.evaluate.request import EvaluationRequest
from fastddpm.verbs.sample.request import SampleRequest, Sampling
from fastddpm.verbs.sample.samples import sample


def evaluate(request: EvaluationRequest) -> Path:
    """Score samples; every process of a launcher calls it.

    Returns: the folder with evaluation.json and, if training images are known, nearest.png.
    Raises: ValueError: images or features that do not fit each other.
    """
    with working(request) as state:
        drawn = None
        if is_run(Path(request.samples)):
            with state.main_process_first():
                mix = classes_in(request.reals, most=request.num_reals, seed=request.seed)
            drawn = _drawn(request, mix, state)
        with state.main_process_first():  # it reads the sources in
            samples, reals, fitting = find_sets(request, drawn)
            originals = find_originals(request, reals, fitting, state.device)
        space = FeatureSpace(request.features, samples.image_shape, state)
        features = space.of(samples.images, "samples"), space.of_reals(reals.images, "reals")
        of_training = None if originals is None else space.of_reals(originals.pixels, "training images")
        if state.is_main_process:
            _write(request, space, samples, reals, originals, (*features, of_training))
        state.wait_for_everyone()
    return request.out


def _drawn(request: EvaluationRequest, mix: Mapping[str, int] | None, state: PartialState) -> str:
    """The file of as many samples as asked for, in the reals' mix of classes."""
    out = request.out / "samples.npz"
    asked = {field.name: getattr(request, field.name) for field in fields(Sampling)}
    sample(
        SampleRequest(model=request.samples, out=out, num_images=request.num_images, seed=request.seed, **asked), mix,
        lambda image_shape: FeatureSpace(request.features, image_shape, state),
    )  # fmt: skip
    return str(out)


def find_sets(request: EvaluationRequest, drawn: str | None) -> tuple[NamedImages, NamedImages, Fitting]:
    """Samples and reals, made to fit as by the run that any of the words names; and how others are.

    Args:
        drawn: the file of samples, if a model drew them.
    """
    run = request.samples if drawn else run_in(request.reals) or run_in(request.training)
    samples: dict[str, Any] = {"most": request.num_images, "seed": request.seed}
    reals: dict[str, Any] = {"most": request.num_reals, "seed": request.seed}
    if run_in(request.reals) and not drawn:
        real = named_images(request.reals, **reals)
        fitting = Fitting.of(run, real.image_shape)
        return named_images(request.samples, fitting, keeps_size=True, **samples), real, fitting
    made = named_images(drawn or request.samples, **samples)
    if drawn and made.label_names is not None:
        with np.load(drawn) as file:  # names of the model's classes; a number where there is no name
            rows = [json.loads(str(row)) for row in file["metadata"]]
        known = {row["label"]: row["label_name"] for row in rows if "label_name" in row}
        made = replace(made, label_names=tuple(known.get(n, str(n)) for n in range(len(made.label_names))))
    fitting = Fitting.of(run, made.image_shape)
    return made, named_images(request.reals, fitting, **reals), fitting


def find_originals(
    request: EvaluationRequest, reals: NamedImages, fitting: Fitting, device: torch.device
) -> Originals | None:
    """Images to look for copies of, if any are known."""
    word = request.training
    if word is None and is_run(Path(request.samples)) and run_folder(request.samples):
        word = f"{request.samples}:train"
    if word is None:
        return None
    if (run := run_in(word)) and word == f"{run}:train":
        return Originals.of_folder(Path(run), reals.image_shape, device)
    found = named_images(word, fitting, most=MAX_TRAINING, seed=request.seed)
    return Originals.of_images(found.images, reals.images, device, facts=dict(found.facts), seed=request.seed)


def _write(
    request: EvaluationRequest,
    space: FeatureSpace,
    samples: NamedImages,
    reals: NamedImages,
    originals: Originals | None,
    features: tuple[Tensor, Tensor, Tensor | None],
) -> None:
    of_samples, of_reals, of_training = features
    found = scores(of_samples, of_reals, resamples=request.resamples, seed=request.seed)
    least = floor(of_reals, len(of_samples), seed=request.seed)
    as_few = beside_floor(of_samples, of_reals, seed=request.seed)
    record: dict[str, Any] = {
        "samples": {**samples.facts, "source": request.samples, **_classes(samples)},
        "reals": {**reals.facts, **_classes(reals)},
        "features": {
            "name": space.name,
            "description": space.description,
            "sha256": space.sha256,
            "count": found.num_features,
        },
        "scores": {**found.row(), "doubt": found.doubt},
        **{
            key: {name: value for name, value in of.row().items() if name != "intervals"}
            for key, of in (("floor", least), ("scores_beside_floor", as_few))
        },
    }
    if originals is not None and of_training is not None:
        verdict = originals.judge(samples.images)
        away = nearest_distances(of_reals, of_training)  # 0: a real that was trained on, which says nothing
        record["memorization"] = {
            "training": originals.facts,
            "mirrored": originals.mirrored,
            **originals.row(verdict),
            "pixel_distance": _points(verdict.samples.distances),
            "feature_distance": _points(nearest_distances(of_samples, of_training)),
            "feature_distance_of_reals": _points(away[away > 0]),
        }
        originals.save_pairs(samples.images, verdict, request.out / "nearest.png")
    write_json(request.out / "evaluation.json", record)
    print("\n".join(lines_of(record, found, least, as_few)))
    print(f"record: {request.out / 'evaluation.json'}")


def lines_of(record: dict[str, Any], found: Scores, least: Scores, as_few: Scores) -> list[str]:
    """A record to read."""
    lines = [
        f"{found.num_samples:,} samples ({record['samples']['source']}) against {found.num_reals:,} reals "
        f"({record['reals']['source']}, {record['reals']['split']})",
        *_mixes_in_words(record["samples"].get("classes"), record["reals"].get("classes")),
        f"in {record['features']['description']} ({record['features']['name']})",
        f"{'':>10} {'score':>9}  {'95 %':>19}  {'as few':>9}  {'reals':>9}",
    ]
    for name in ("fid", "kid", "precision", "recall"):
        low, high = found.intervals.get(name, (float("nan"),) * 2)
        between = f"{low:.4g} to {high:.4g}" if found.intervals else ""
        others = "  ".join(f"{getattr(of, name):>9.4g}" for of in (as_few, least))
        lines.append(f"{name:>10} {getattr(found, name):>9.4g}  {between:>19}  {others}")
    if found.doubt is not None:
        lines.append(found.doubt)
    lines.append(
        f"the last two columns: {least.num_samples:,} samples, and as many reals, against {least.num_reals:,} other "
        "reals; compare these two"
    )
    if "memorization" in record:
        seen = record["memorization"]
        of_reals = seen["feature_distance_of_reals"]
        lines.append(
            f"copies of training images: {seen['verdict']} ({seen['num_close']} of {seen['num_samples']} samples are "
            f"closer to one than 95 % of reals); the nearest one is {seen['feature_distance'][1]:.3g} away in features "
            f"(median), of reals {f'{of_reals[1]:.3g}' if of_reals else 'n/a: all were trained on'}"
        )
        if seen["mirrored"] is None:
            lines.append("whether training mirrored its images is not known: mirrored copies were not looked for")
    return lines


def _classes(images: NamedImages) -> dict[str, Any]:
    return {} if images.classes is None else {"classes": dict(images.classes.most_common())}


def _mixes_in_words(samples: Mapping[str, int] | None, reals: Mapping[str, int] | None) -> list[str]:
    """Both mixes of classes, by share; where they differ by more than their rounding, what that does."""
    shares = [{name: count / sum(of.values()) for name, count in of.items()} for of in (samples or {}, reals or {})]
    if not any(shares):
        return []
    told = [
        ", ".join(f"{share:.0%} {name}" for name, share in list(of.items())[:5]) + (", ..." if len(of) > 5 else "")
        for of in shares
    ]
    lines = [f"classes: samples {told[0] or 'without labels'}; reals {told[1] or 'without labels'}"]
    apart = sum(abs(shares[0].get(name, 0) - shares[1].get(name, 0)) for name in {*shares[0], *shares[1]}) / 2
    if all(shares) and apart > 0.05:
        lines.append(f"the mixes of classes differ by {apart:.0%}: every score measures that too")
    return lines


def _points(values: Tensor) -> list[float]:
    """5 %, 50 % and 95 % points; of nothing, nothing."""
    if not len(values):
        return []
    return [round(float(x), 4) for x in np.quantile(values.double().numpy(), [0.05, 0.5, 0.95])]
