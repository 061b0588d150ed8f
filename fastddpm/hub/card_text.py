"""What a model card says in words, from the records of a run; what is not recorded is not said."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

SCORES = {"fid": "FID", "kid": "KID", "precision": "Precision", "recall": "Recall"}


def body(folder: Path, name: str, records: Mapping[str, Any]) -> list[str]:
    """Sections of Markdown."""
    return [
        _what(records),
        *_pictures(folder),
        _how_to_load(folder, records, name),
        *_training(records),
        *_evaluation(records),
        *_copies(records),
        _limits(records),
    ]


def _what(records: Mapping[str, Any]) -> str:
    unet = records["unet"]
    size, channels = unet.get("sample_size"), unet.get("in_channels")
    size = f"{size[1]}x{size[0]}" if isinstance(size, list) else f"{size}x{size}"
    colour = {1: "grayscale", 3: "colour"}.get(channels, f"{channels} channels")
    classes = num_classes(records)
    of_classes = f", of {classes} classes" if classes else ""
    return (
        f"A denoising diffusion model (Ho, Jain and Abbeel 2020) that draws {colour} images of {size} pixels"
        f"{of_classes}: a `{unet.get('_class_name')}`, trained with the package fastddpm."
    )


def num_classes(records: Mapping[str, Any]) -> int | None:
    count = records["unet"].get("num_class_embeds")
    return None if not count else count - 1  # the last one is the null class


def _pictures(folder: Path) -> list[str]:
    shown = []
    if (folder / "samples.png").is_file():
        shown.append("![Samples, not chosen](samples.png)\n\n*Samples, not chosen.*")
    if (folder / "denoising.png").is_file():
        shown.append(
            "![From noise to image](denoising.png)\n\n*A row a sample: the same image at later and later steps.*"
        )
    return shown


def _how_to_load(folder: Path, records: Mapping[str, Any], name: str) -> str:
    brings_code, classes = (folder / "unet" / "fastddpm.py").is_file(), num_classes(records)
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    plain = f'from diffusers import DiffusionPipeline\n\npipeline = DiffusionPipeline.from_pretrained("{name}")\n'
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    steps = min(100, scheduler.get("num_train_timesteps", 100))
    draw = f"image = pipeline(num_inference_steps={steps}).images[0]"
    trusted = plain.replace(f'"{name}")', f'"{name}", custom_pipeline="pipeline", trust_remote_code=True)')
    own = draw.replace("(num_", "(class_labels=[0], num_") if classes else draw
    ours = (
        f'from fastddpm import FastDDPMPipeline\n\npipeline = FastDDPMPipeline.from_pretrained("{name}")\n'
        f"{own.replace('(', '(seeds=[0], ', 1)}"
    )
    register = "import fastddpm  # makes its network known to diffusers\n"
    parts = ["## Use it"]
    if isinstance(index.get("_class_name"), list):
        parts.append(
            "Diffusers' own pipeline passes no labels, so this runs `pipeline.py` of this repository; read it before "
            f"you allow that:\n\n{_code(trusted + own)}"
        )
    elif not brings_code:
        parts.append(f"In plain diffusers, without any code of this repository:\n\n{_code(plain + draw)}")
    else:
        weaker = "\n\nIt passes no label, which is weaker than asking for a class." if classes else ""
        parts += [
            f"With fastddpm installed no code of this repository runs:\n\n{_code(register + plain + draw)}{weaker}",
            "Without it, `unet/fastddpm.py` and `pipeline.py` of this repository run; read them before you allow that:"
            f"\n\n{_code(trusted + own)}",
        ]
    parts.append(
        "With fastddpm, images by seed, whatever else is drawn with them; variations and blends of your own images are "
        f"in its `VariationPipeline` and `CutMixPipeline`:\n\n{_code(ours)}"
    )
    return "\n\n".join(parts)


def _code(lines: str) -> str:
    return f"```python\n{lines}\n```"


def _training(records: Mapping[str, Any]) -> list[str]:
    if records["about"] is None:
        return []
    facts = [f"| {name} | {value} |" for name, value in records["about"]["facts"]]
    data = records["data"]
    if data is not None:
        source = data_name(str(data["source"]))
        facts.insert(0, f"| data set | {source}: {data['num_images']:,} images, {data['num_train']:,} trained on |")
    table = "\n".join(["| | |", "|---|---|", *facts])
    settings = _settings(records["config"])
    how = (
        f"<details><summary>Every setting: the same again is <code>fastddpm train --config FILE</code> with this in it"
        f"</summary>\n\n```yaml\n{settings}```\n\n</details>"
    )
    return ["## Training", table, *([how] if settings else [])]


def _settings(config: Mapping[str, Any] | None) -> str:
    """All settings that decide the weights; no path of the machine that trained."""
    if config is None:
        return ""
    shown = {name: config[name] for name in ("seed", "data", "model", "scheduler", "train", "sample") if name in config}
    data = {key: value for key, value in shown.get("data", {}).items() if key != "cache_dir"}
    data["source"] = data_name(str(data.get("source", "")))
    model = dict(shown.get("model", {}))
    if model.get("init_from"):
        model["init_from"] = data_name(model["init_from"])
    return yaml.safe_dump({**shown, "data": data, "model": model}, sort_keys=False)


def data_name(source: str) -> str:
    """Of a path, its last part: the rest says where people keep their files."""
    return source if re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", source) else Path(source).name or source


def _evaluation(records: Mapping[str, Any]) -> list[str]:
    found = records["evaluation"]
    if found is None:
        return []
    rows = ["| | this model | 95 % | as many real images |", "|---|---|---|---|"]
    for key, name in SCORES.items():
        low, high = found["scores"]["intervals"].get(key, (None, None))
        between = "" if low is None else f"{low:.4g} to {high:.4g}"
        rows.append(f"| {name} | {found['scores'][key]:.4g} | {between} | {found['floor'][key]:.4g} |")
    reals, scores = found["reals"], found["scores"]
    said = (
        f"{scores['num_samples']:,} samples against {scores['num_reals']:,} real images "
        f"({data_name(str(reals['source']))}, split {reals['split']}), in {found['features']['description']}. Such "
        f"scores compare only where the features are the same."
    )
    return [
        "## Evaluation",
        "\n".join(rows),
        said,
        *([found["scores"]["doubt"]] if found["scores"].get("doubt") else []),
    ]


def _copies(records: Mapping[str, Any]) -> list[str]:
    verdict = (records["about"] or {}).get("verdict")
    said = [] if verdict is None else [_without_picture(str(verdict[1]))]
    found = records["evaluation"] or {}
    if "memorization" in found:
        kind, count = found["memorization"]["verdict"], found["memorization"]["num_close"]
        who = f"the {found['scores']['num_samples']:,} samples of the evaluation"
        close = f"{count:,} of {who} lie closer to one training image than 95 % of the real images do"
        said.append(f"Whether {who} are copies cannot be told." if kind == "cannot tell" else f"{close}: {kind}.")
    return ["## Copies of training images", *said] if said else []


def _without_picture(verdict: str) -> str:
    """nearest.png shows training images, and is not published."""
    return verdict.replace("; look at nearest.png", "").replace(": look at nearest.png, and train", ": train")


def _limits(records: Mapping[str, Any]) -> str:
    count = (records["data"] or {}).get("num_train")
    of = f" (here {count:,})" if count else ""
    unknown = [] if records["evaluation"] else ["How good its images are was not measured."]
    if not _copies(records):
        unknown.append("Whether they are copies of training images was not looked at.")
    return "\n\n".join(
        [
            "## Limits, and what it is for",
            f"It draws images like those it was trained on{of}: more of their kind, variations, blends, material for "
            "training other models and for finding what does not belong. It knows no text and nothing beyond those "
            "images; what they lack or over-represent, it lacks or over-represents. Its images are not photographs of "
            "anything, and are no evidence of anything. Do not use it to deceive, or to draw real persons without "
            "their consent.",
            *([" ".join(unknown)] if unknown else []),
        ]
    )
