"""Judge pictures as `fastddpm detect` does, without torch: python judge.py PICTURE ...

Needs numpy, Pillow and onnxruntime or openvino. Prints a line of JSON a picture: its score in standard deviations of
normal ones, its p-value, and whether it is an anomaly. Called from Python, `judge` returns the maps as well.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

HERE = Path(__file__).parent


def judge(paths: list[str], folder: Path = HERE, batch: int = 16) -> list[dict[str, Any]]:
    """A row a picture; `map` is (H, W), float32."""
    about, rows = json.loads((folder / "model.json").read_text()), []
    network, normal = opened(folder, about), np.sort(about["normal_scores"])
    for first in range(0, len(paths), batch):
        part = paths[first : first + batch]
        scores, maps = network({"images": np.stack([fitted(path, about) for path in part])})
        for path, score, map_ in zip(part, scores.tolist(), maps, strict=True):
            higher = len(normal) - np.searchsorted(normal, score, side="left")
            p_value, is_anomaly = (1 + int(higher)) / (len(normal) + 1), score > about["image_threshold"]
            rows.append({"image": path, "score": score, "p_value": p_value, "is_anomaly": is_anomaly, "map": map_})
    return rows


def fitted(path: str, about: dict[str, Any]) -> np.ndarray:
    """(C, H, W), uint8: as the model's own pictures were made to fit."""
    image: Any = Image.open(path, formats=about["formats"])
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise ValueError(f"{path} has {image.n_frames} pages: save the one you want")
    if any(";16" in str(tile.args) for tile in image.tile):  # Pillow cuts them to 8 bits
        raise ValueError(f"{path} has more than 8 bits a channel: convert it to 8 bits first")
    image = _plain(ImageOps.exif_transpose(image), about).convert(about["mode"])
    (height, width), way = about["size"], about["fit"]
    if about["center_crop"]:
        image = _middle(image, about["center_crop"])
    if way == "crop":  # the largest part in the middle with the wanted aspect
        aspect = width / height
        wide, tall = min(image.width, aspect * image.height), min(image.height, image.width / aspect)
        left, top = (image.width - wide) * 0.5, (image.height - tall) * 0.5
        image = image.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, left + wide, top + tall))
    elif way == "stretch":
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    elif way == "pad":
        scale = min(height / image.height, width / image.width)
        wide, tall = (max(1, round(side * scale)) for side in image.size)
        canvas = Image.new("RGB", (width, height), tuple(about["background"] or (0, 0, 0))).convert(image.mode)
        canvas.paste(image.resize((wide, tall), Image.Resampling.BICUBIC), ((width - wide) // 2, (height - tall) // 2))
        image = canvas
    if about["random_crop"]:
        image = _middle(image, about["random_crop"])
    pixels = np.asarray(image)
    if pixels.shape[:2] != tuple(about["shown"]):
        raise ValueError(f"{path} is {image.width}x{image.height} after cutting; wanted {about['shown']}, (H, W)")
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _plain(image: Image.Image, about: dict[str, Any]) -> Image.Image:
    """The picture in 8 bits and sRGB, without transparency."""
    if image.mode not in ("1", "L", "LA", "RGB", "P", "RGBA", "PA"):
        raise ValueError(f"a picture has the mode {image.mode}: convert it to 8-bit grayscale or RGB first")
    colours = "L" if image.mode in ("1", "L", "LA") else "RGB"
    has_alpha = image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info
    alpha, profile = image.convert("RGBA").getchannel("A"), image.info.get("icc_profile")
    image = image.convert(colours)
    if profile and about["color_management"] == "srgb":
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        takes = {"GRAY": "L", "RGB": "RGB"}[own.profile.xcolor_space.strip()]
        to_srgb = ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), takes, "RGB")
        image = to_srgb.apply(image.convert(takes)).convert(colours)
    if not has_alpha or alpha.getextrema() == (255, 255):
        return image
    if about["background"] is None:
        raise ValueError("a picture has transparent pixels, and the model's run had no data.background to lay them on")
    image = image.convert("RGBA")
    image.putalpha(alpha)
    below = Image.new("RGBA", image.size, (*about["background"], 255))
    return Image.alpha_composite(below, image).convert(colours)


def _middle(image: Image.Image, side: int) -> Image.Image:
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def opened(folder: Path, about: dict[str, Any]) -> Any:
    """The network: from arrays by the names of its inputs to its outputs."""
    if about["to"] == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(about["outputs"], inputs)
    import openvino

    accurate = {"INFERENCE_PRECISION_HINT": "f32"}  # it takes bfloat16 otherwise where the CPU has it
    compiled = openvino.Core().compile_model(str(folder / "model.xml"), "CPU", accurate)

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        answers = compiled(inputs)
        return [answers[name] for name in about["outputs"]]

    return run


if __name__ == "__main__":
    for row in judge(sys.argv[1:]):
        del row["map"]
        print(json.dumps(row))
