"""`fastddpm export`: a model for a runtime without torch, written if it answers as torch does."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastddpm import files
from fastddpm.config.runs import run_folder
from fastddpm.data.named_pictures import Fitting, NamedImages, named_images
from fastddpm.data.opening import FORMATS
from fastddpm.measures.calibration import Calibration
from fastddpm.pipelines.anomaly import AnomalyPipeline
from fastddpm.verbs.export import judge
from fastddpm.verbs.export.detector import Detector, Predictor
from fastddpm.verbs.export.request import ExportRequest
from fastddpm.verbs.sample.open_model import open_pipeline

MOST_APART = 1e-4
"""difference from torch's numbers, over the larger of 1 and those, up to which an export is written; of scores as
shares of the distance that they tell, as torch's own differ as much by layout in standard deviations (docs/log.md)"""
ABOUT, RUNNER = "model.json", "judge.py"
_NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
_TAGGED = ("AVIF", "HEIF")
"""formats whose colour tags Pillow does not tell, as judge.py would have to know"""
_BATCHES = (1, 3, 16)
"""numbers of pictures compared at once, the last one for all that are left: a graph may take one number only"""


def export(request: ExportRequest) -> Path:
    """Export a model, and compare it.

    Returns: the folder with the model, model.json, and of a detection judge.py.
    Raises: ValueError: packages that are missing, a calibration of another model, no pictures to compare with, or
        answers other than torch's.
    """
    if missing := [name for name in _NEEDS[request.to] if importlib.util.find_spec(name) is None]:
        raise ValueError(
            f"--to {request.to} needs {', '.join(missing)}, not installed; run pip install 'fastddpm[export]'"
        )
    if request.out.exists() and not request.out.is_dir():
        raise ValueError(f"--out is {request.out}, a file; wanted a folder")
    if request.out.is_dir() and any(request.out.iterdir()) and not (request.out / ABOUT).is_file():
        raise ValueError(f"{request.out} holds other things than an export; choose another --out, or empty it")
    pipeline: AnomalyPipeline = open_pipeline(AnomalyPipeline, request.model)
    pipeline.unet.eval().float()
    fitting = Fitting.of(request.model, pipeline.image_shape)
    module, about = _of_network(pipeline)
    if request.calibration is not None:
        calibration = Calibration.load(request.calibration)
        pipeline.check_calibration(calibration)
        module, about = Detector(pipeline, calibration), _of_detection(calibration, fitting)
    with files.locked(request.out), torch.no_grad():
        pictures = _pictures(request, fitting)
        with files.written(request.out) as made:
            made.mkdir()
            about = {"to": request.to, **about}
            _convert(module, request.to, _inputs(about, pipeline, pictures.images[:2]), about, made)
            about["compared"] = _compared(module, about, pipeline, pictures, made)
            files.write_json(made / ABOUT, about)
            if request.calibration is not None:
                files.write_bytes(made / RUNNER, Path(judge.__file__).read_bytes())
    print(f"{request.out}: as torch on {len(pictures.images)} pictures, {about['compared']['most_apart']:.1e} apart")
    return request.out


def _pictures(request: ExportRequest, fitting: Fitting) -> NamedImages:
    if request.images is None and run_folder(request.model) is None:
        raise ValueError(
            f"{request.model} is no run folder, so it has no held-out pictures to compare on; name some: --images"
        )
    return named_images(request.images or f"{request.model}:held_out", fitting, most=request.num_images)


def _of_network(pipeline: AnomalyPipeline) -> tuple[nn.Module, dict[str, Any]]:
    unet, classes = pipeline.unet, pipeline.num_classes
    inputs = ["sample", "timestep", *(["class_labels"] if classes is not None else [])]
    about = {
        "inputs": inputs, "outputs": ["prediction"], "shape": pipeline.image_shape, "num_classes": classes,
        "null_class": pipeline.null_class, "scheduler": dict(pipeline.scheduler.config),
    }  # fmt: skip
    return Predictor(unet), about


def _of_detection(calibration: Calibration, fitting: Fitting) -> dict[str, Any]:
    fit = fitting.fit
    channels, height, width = fitting.image_shape
    return {
        "inputs": ["images"], "outputs": ["scores", "maps"],
        "mode": "L" if channels == 1 else "RGB", "shown": (height, width), "size": fit.size or (height, width),
        "fit": fit.way if fit.size else None, "center_crop": fit.center_crop, "random_crop": fit.random_crop,
        "background": fit.background, "color_management": fit.meaning.color_management,
        "formats": [of for of in FORMATS if of not in _TAGGED],
        "image_threshold": calibration.image_threshold, "pixel_threshold": calibration.pixel_threshold,
        "false_alarms": calibration.facts["false_alarms"],
        "normal_scores": calibration.group_scores.double().tolist(),
    }  # fmt: skip


def _inputs(about: dict[str, Any], pipeline: AnomalyPipeline, images: np.ndarray) -> tuple[Tensor, ...]:
    """Arguments of a module for some pictures, (B, C, H, W), uint8."""
    pixels = torch.from_numpy(images)
    if about["inputs"] == ["images"]:
        return (pixels,)
    places = torch.arange(len(pixels))
    timesteps = places * 97 % pipeline.scheduler.config.num_train_timesteps
    classes = [] if about["num_classes"] is None else [places % about["num_classes"]]
    return (pixels.float() / 127.5 - 1, timesteps, *classes)


def _convert(module: nn.Module, to: str, example: tuple[Tensor, ...], about: dict[str, Any], made: Path) -> None:
    """Write the graph, which takes any number of pictures; its example has two, since of one some graphs take one."""
    batch = torch.export.Dim("batch")
    logging.disable(logging.WARNING)  # that torchvision, which nothing here needs, is not there
    try:
        with warnings.catch_warnings(action="ignore"):  # of torch, to itself
            program = torch.onnx.export(
                module, example, dynamo=True, verbose=False, input_names=about["inputs"],
                output_names=about["outputs"], dynamic_shapes=tuple({0: batch} for _ in example),
            )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    assert program is not None
    program.save(str(made / "model.onnx"))
    if to == "openvino":
        import openvino

        openvino.save_model(openvino.convert_model(made / "model.onnx"), made / "model.xml", compress_to_fp16=False)
        files.remove(made / "model.onnx")


def _compared(
    module: nn.Module, about: dict[str, Any], pipeline: AnomalyPipeline, pictures: NamedImages, made: Path
) -> dict[str, Any]:
    """Compare what was written with torch, and say how far they are apart.

    Raises: ValueError: further than `MOST_APART`, or with another verdict on a picture.
    """
    run, most, limit = judge.opened(made, about), 0.0, about.get("image_threshold")
    unit = module.unit if isinstance(module, Detector) else 1.0
    for part in _parts(pictures.images):
        given = _inputs(about, pipeline, part)
        expected = module(*given)
        answers = run({name: tensor.numpy() for name, tensor in zip(about["inputs"], given, strict=True)})
        first = (expected if isinstance(expected, Tensor) else expected[0]).numpy()
        most = max(most, unit * float((np.abs(answers[0] - first) / np.maximum(1, np.abs(first))).max()))
        if not most <= MOST_APART or (limit is not None and ((answers[0] > limit) != (first > limit)).any()):
            raise ValueError(
                f"{about['to']} answers otherwise than torch: {most:.1e} apart on {pictures.facts['source']}, wanted "
                f"{MOST_APART:g} and equal verdicts; nothing was written: try another --to, or report it"
            )
    return {"pictures": len(pictures.images), "most_apart": most, **pictures.facts}


def _parts(images: np.ndarray) -> Iterator[np.ndarray]:
    first = 0
    for size in _BATCHES[:-1]:
        yield images[first : first + size]
        first += size
    for start in range(first, len(images), _BATCHES[-1]):
        yield images[start : start + _BATCHES[-1]]
