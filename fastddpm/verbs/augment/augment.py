"""`fastddpm augment`: a labelled set's variations, blends or samples, drawn, filtered and written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from fastddpm.config import check_steps
from fastddpm.config.early_checks import FOLDER, check_out
from fastddpm.data.named_pictures import Fitting, LabelledImages, read_inputs
from fastddpm.pipelines.generate import FastDDPMPipeline
from fastddpm.pipelines.renoise import RenoisingPipeline, check_can_wait
from fastddpm.pipelines.vary import VariationPipeline
from fastddpm.process import say
from fastddpm.schedulers.named import name_of, scheduler_named
from fastddpm.verbs.augment.augmentations import Augmentations, folder_names
from fastddpm.verbs.augment.filters import Filters, LabelFilter, classes_of, copies_of, originals_of
from fastddpm.verbs.augment.plan import make_plan
from fastddpm.verbs.augment.request import AugmentRequest, Mode
from fastddpm.verbs.augment.result import Augmented, check_balanced
from fastddpm.verbs.sample import all_processes as job


def augment(request: AugmentRequest) -> Path:
    """Draw new labelled images from labelled images; every process of a launcher calls it. What an earlier one left
    unfinished is gone on with, and the files hold the same bytes on any number of processes, as of `sample`.

    Beside `request.out`, a folder or a Parquet file, are NAME.json with the counts and NAME.png, a contact sheet.

    Returns: where the images are.
    Raises: ValueError: data, model, filters or settings that do not fit each other, or what lies at `request.out`; no
        image that the filters leave. Unbalanced: classes were to be balanced, and of one nothing is left.
    """
    check_out(request.out, (FOLDER, ".parquet"))

    def series_of(pipeline: Any, precision: str) -> Augmentations:
        return _series(request, pipeline, precision, find(request, pipeline))

    out = job.run(request, _KINDS[request.mode], series_of, Augmented)
    if request.balance:
        check_balanced(out)
    return out


_KINDS: dict[Mode, Any] = {
    "variations": VariationPipeline,
    "cutmix": VariationPipeline,
    "samples": FastDDPMPipeline,
}
"""pipelines by mode; a paste is noised as any image is"""


@dataclass(frozen=True, eq=False)
class Found:
    """Inputs that are there before anything is drawn."""

    data: LabelledImages
    training: dict[str, Any]
    """plain JSON values: which images the model was trained on, or why that is not known"""
    filters: Filters


def find(request: AugmentRequest, pipeline: Any) -> Found:
    state = PartialState()
    data = _labelled(request, pipeline.image_shape)
    known = originals_of(request.model, pipeline.image_shape)
    originals, training = (None, {"unknown": known}) if isinstance(known, str) else (known, known.facts)
    if originals is None:
        say(state, f"no distances to training images: {known}")
    labels = None
    if request.judge is not None:
        labels = LabelFilter.of(request.judge, data, pipeline.image_shape, state.device)
    copies = copies_of(originals, data, state.device) if request.drop_copies else None
    if copies is not None and originals is None:
        say(state, "drop_copies looks for copies of the images of the data only")
    return Found(data, training, Filters(originals, labels, copies))


def _labelled(request: AugmentRequest, image_shape: tuple[int, int, int]) -> LabelledImages:
    """The images of `request.data`."""
    columns = {name: getattr(request, name) for name in ("subset", "image_column", "label_column")}
    with PartialState().main_process_first():  # a run's may have to be read in
        fitting = Fitting.of(request.model, image_shape)
        found = read_inputs([request.data], fitting, split=request.split, columns=columns)
    if found.labels is None:
        raise ValueError(
            f"{request.data} has no labels; wanted class folders, a table or list with a column of classes (say which "
            "with --label_column), the images of a run that was trained with labels, or another labelled source"
        )
    return LabelledImages(**vars(found))


def _series(request: AugmentRequest, pipeline: Any, precision: str, found: Found) -> Augmentations:
    """Raises: ValueError: among others, classes, starts or steps that the model or its solver does not have."""
    classes, draws_any_class = None, request.mode == "cutmix" or request.any_class  # a blend has two labels
    if request.mode == "samples" or (pipeline.num_classes is not None and not draws_any_class):
        classes = _classes(request, pipeline, found)
    if request.mode == "samples":
        count = request.num_inference_steps or pipeline.default_steps
        check_steps(request.scheduler, pipeline.scheduler.config.num_train_timesteps, count, "num_inference_steps")
        pipeline.set_timesteps(count, None)
        steps: dict[int | None, int] = {None: count}
    else:
        steps = _renoising_steps(request, pipeline, classes is None)
    if request.guidance_scale not in (None, 1.0) and (classes is None or pipeline.null_class is None):
        raise ValueError(
            f"guidance_scale is {request.guidance_scale}, but {request.model} is not class-conditional, or was trained "
            "without a null class to be guided away from: use guidance_scale 1"
        )
    pipeline.set_guidance(request.guidance_scale, None if classes is None else torch.from_numpy(classes))
    plan = make_plan(request, found.data.labels, pipeline.image_shape[1:])
    made_by: dict[str, Any] = {"scheduler": name_of(pipeline.scheduler), "guidance": pipeline.guidance_scale}
    return Augmentations(
        **Augmentations.common(request, pipeline, precision, len(plan), **made_by),
        request=request,
        plan=plan,
        data=found.data,
        folders=folder_names(found.data.label_names),
        classes=classes,
        steps=steps,
        filters=found.filters,
        compared={
            "data": {"source": request.data, "num_images": len(found.data.names)},
            "training": found.training,
            **found.filters.facts(),
        },
    )


def _classes(request: AugmentRequest, pipeline: Any, found: Found) -> Any:
    if pipeline.num_classes is None:
        raise ValueError(
            f"mode 'samples' draws by class, but {request.model} was trained without classes; use --mode variations or "
            "cutmix, or a model trained with --model.class_conditional true"
        )
    data, known = found.data, found.filters.label_names
    if known is None:
        say(PartialState(), "the model's classes have no names here: labels go by their numbers")
    return classes_of(data.label_names, data.labels, known, pipeline.num_classes, f"the model {request.model}")


def _renoising_steps(request: AugmentRequest, pipeline: RenoisingPipeline, any_class: bool) -> dict[int | None, int]:
    """Reverse steps of each start timestep."""
    starts, asked = request.starts, request.num_inference_steps
    pipeline.starts_of(list(starts))
    if any_class:
        pipeline.labels_or_any(None, 1)  # refuses a model that needs a class and knows none for "any"
    if isinstance(starts, range):
        if request.scheduler is None:
            pipeline.scheduler = scheduler_named("ddpm", pipeline.scheduler)
        check_can_wait(pipeline.scheduler, asked)
        return {start: start for start in starts}
    pipeline.check_steps(starts, asked)
    return {start: pipeline.steps_from(start) if asked is None else min(asked, start) for start in starts}
