"""`fastddpm vary`: variations of image files, into the same formats as samples."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fastddpm.config import SamplerName
from fastddpm.data import to_uint8
from fastddpm.pipelines.vary import VariationPipeline
from fastddpm.sampling import formats
from fastddpm.sampling.formats import Batch
from fastddpm.sampling.opening import open_pipeline
from fastddpm.schedulers.named import name_of
from fastddpm.training.microbatch import explained_out_of_memory_of_drawing


@dataclass(frozen=True, kw_only=True)
class VariationRequest:
    """What `fastddpm vary` is asked for; each field is an option of the command line, where it has its meaning."""

    model: str
    images: Sequence[Path]
    out: Path
    start_timestep: int = 300
    num_variations: int = 8
    seed: int = 0
    class_label: int | None = None
    guidance_scale: float = 1.0
    scheduler: SamplerName | None = None
    num_inference_steps: int | None = None
    micro_batch_size: int = 64


def vary(request: VariationRequest) -> Path:
    """Draw variations of image files on this process.

    Returns: where they are.
    Raises: ValueError: images, or settings, that do not fit the model.
    """
    pipeline = open_pipeline(VariationPipeline, request.model, request.scheduler)
    pipeline = pipeline.to("cuda") if torch.cuda.is_available() else pipeline
    count = len(request.images) * request.num_variations
    kind = formats.kind_of(request.out, count, pipeline.image_shape)
    size = max(1, min(request.micro_batch_size, count))
    with explained_out_of_memory_of_drawing(size, ""):
        drawn = pipeline(
            [Image.open(path) for path in request.images],
            class_labels=None if request.class_label is None else [request.class_label] * count,
            guidance_scale=request.guidance_scale,
            start_timestep=request.start_timestep,
            num_variations=request.num_variations,
            seeds=range(request.seed, request.seed + count),
            num_inference_steps=request.num_inference_steps,
            micro_batch_size=size,
            output_type="pt",
        ).images
    batch = Batch(to_uint8(drawn * 2 - 1).cpu().numpy(), _rows(request, name_of(pipeline.scheduler)))
    if kind == formats.FOLDER:
        _add_to_folder(request.out, batch)
    else:
        request.out.parent.mkdir(parents=True, exist_ok=True)
        formats.save_file(request.out, [batch], count, {"command": "vary"}, columns=request.num_variations)
    print(f"{count} images: {request.out}")
    return request.out


def _rows(request: VariationRequest, scheduler: str) -> list[dict[str, Any]]:
    stems = [path.stem for path in request.images]
    if len(set(stems)) < len(stems):  # the same name in two folders
        stems = [f"{i:03d}-{stem}" for i, stem in enumerate(stems)]
    facts = {
        "start_timestep": request.start_timestep,
        "scheduler": scheduler,
        "steps": request.start_timestep if request.num_inference_steps is None else request.num_inference_steps,
        "guidance": request.guidance_scale,
        "model": request.model,
    }
    names = [(stem, path, k) for stem, path in zip(stems, request.images, strict=True) for k in _each(request)]
    return [
        {
            "file_name": f"{stem}-{k:03d}.png",
            "seed": request.seed + place,
            "label": request.class_label,
            "variation_of": path.name,
            **facts,
        }
        for place, (stem, path, k) in enumerate(names)
    ]


def _each(request: VariationRequest) -> range:
    return range(request.num_variations)


def _add_to_folder(folder: Path, batch: Batch) -> None:
    """Beside variations that are there already; those of the same name are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    formats.save_pngs(folder, batch)
    table, new = folder / "metadata.jsonl", {row["file_name"] for row in batch.rows}
    old = [json.loads(line) for line in table.read_text().splitlines()] if table.exists() else []
    formats.save_metadata(folder, [*(row for row in old if row.get("file_name") not in new), *batch.rows])
