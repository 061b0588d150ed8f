"""The model card: YAML for the Hub, text for people, written from the files of a run, nothing invented.

What stands between two marks is written anew each time; all other text, and metadata of the user's own, is kept.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fastddpm.config.bounded_text import from_yaml, read_facts
from fastddpm.config.runs import section
from fastddpm.files import write_text
from fastddpm.report.page_pieces import render

BEGIN = (
    "<!-- fastddpm: from here to the end mark, the text is written anew from the run's records at each save or push -->"
)
END = "<!-- fastddpm: end; text of your own, below or above, is kept -->"
NAMELESS = "PATH or user/name"
"""stands for the model's name while it has none"""
TAGS = ("fastddpm", "ddpm", "diffusion-models")
SCORES = {"fid": "FID", "kid": "KID", "precision": "Precision", "recall": "Recall"}
RESULTS = "DDPM"
"""the name of our own entry in `model-index`"""
_FRONT = re.compile(r"\A---\n(.*?)\n---\n?", re.DOTALL)


def write_card(
    folder: Path, *, name: str = NAMELESS, license: str | None = None, evaluation: Path | None = None, others: str = ""
) -> None:
    """Write README.md of a saved folder; one without our marks is the user's, and stays until it gets a name.

    Args:
        name: its id on the Hub.
        license: the Hub's word for it, such as `apache-2.0`; None: what the card says already, if anything.
        evaluation: an evaluation.json of `fastddpm evaluate`; None: the one in `folder`/evaluation, if there is one.
        others: a card from elsewhere, such as an earlier push: its own text and metadata are taken over, where the
            folder's card has none.
    """
    path = folder / "README.md"
    here = path.read_text(encoding="utf-8") if path.exists() else ""
    if name == NAMELESS and here.strip() and BEGIN not in here:
        return  # the user's own, whole
    records = _records(folder, evaluation)
    generated = render("hub/card.md", name=name, **records, **_facts(folder, records["unet"])).strip()
    kept, text = _both(_front(others)[0], _front(here)[0]), _own_text(here) or _own_text(others)
    title = "A DDPM trained with fastddpm" if name == NAMELESS else f"A DDPM: {name.rpartition('/')[2]}"
    before, after = text or (f"# {title}", "")
    front = _metadata(kept, records, license)
    written = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    card = f"---\n{written}---\n{before}\n\n{BEGIN}\n\n{generated}\n\n{END}\n" + (f"\n{after}\n" if after else "")
    write_text(path, card)


def _front(card: str) -> tuple[dict[str, Any], str]:
    """The metadata of a card, and its text."""
    found = _FRONT.match(card)
    if found is None:
        return {}, card
    try:
        values = from_yaml(found[1])
    except ValueError as error:
        raise ValueError(f"the metadata of the model card, README.md, are {error}; mend them") from None
    return values if isinstance(values, dict) else {}, card[found.end() :]


def _both(there: dict[str, Any], here: dict[str, Any]) -> dict[str, Any]:
    """The metadata of two cards: lists of words, such as tags, as one list; of other values, those of `here`."""

    def is_words(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(word, str) for word in value)

    lists = {key for key in there.keys() & here.keys() if is_words(there[key]) and is_words(here[key])}
    return {**there, **here, **{key: list(dict.fromkeys([*here[key], *there[key]])) for key in lists}}


def _own_text(card: str) -> tuple[str, str] | None:
    """Text that the user wrote before and after our marks, without the title that we give; None: nothing."""
    text = _front(card)[1]
    if BEGIN not in text or END not in text:
        return (text.strip(), "") if text.strip() else None
    before, after = text.partition(BEGIN)[0].strip(), text.rpartition(END)[2].strip()
    is_ours = not after and re.fullmatch(r"# A DDPM[^\n]*", before)
    return None if is_ours else (before, after)


def _records(folder: Path, evaluation: Path | None) -> dict[str, Any]:
    """The files that say what the model is; those that are not there are None."""
    scores = evaluation or folder / "evaluation" / "evaluation.json"
    if evaluation is not None and not evaluation.is_file():
        raise ValueError(f"{evaluation} is no file; give the evaluation.json that `fastddpm evaluate` wrote")
    config = folder / "config.yaml"
    return {
        "unet": _json(folder / "unet" / "config.json") or {},
        "about": _json(folder / "about.json"),
        "data": _json(folder / "data.json"),
        "evaluation": _json(scores),
        "settings": _settings(read_facts(config)) if config.is_file() else None,
    }


def _facts(folder: Path, unet: Mapping[str, Any]) -> dict[str, Any]:
    """Further facts of a folder for the card."""
    size, channels, num_embedded = unet.get("sample_size"), unet.get("in_channels", 0), unet.get("num_class_embeds")
    width, height = (size[1], size[0]) if isinstance(size, list) else (size, size)
    return {
        "network": unet.get("_class_name"),
        "size": f"{width}x{height}",
        "colour": {1: "grayscale", 3: "colour"}.get(channels, f"{channels} channels"),
        "num_classes": num_embedded - 1 if num_embedded else None,  # the last one is the null class
        "pictures": [name for name in ("samples.png", "denoising.png") if (folder / name).is_file()],
        "brings_code": isinstance((_json(folder / "model_index.json") or {}).get("_class_name"), list),
        "names_of_scores": SCORES,
        "data_name": data_name,
    }


def _settings(config: Mapping[str, Any]) -> str:
    """All settings that decide the weights; no path of the machine that trained."""
    shown = {name: config[name] for name in ("seed", "data", "model", "scheduler", "train", "sample") if name in config}
    data = {key: value for key, value in section(shown, "data").items() if key != "cache_dir"}
    data["source"] = data_name(str(data.get("source", "")))
    model = dict(section(shown, "model"))
    if model.get("init_from"):
        model["init_from"] = data_name(model["init_from"])
    return yaml.safe_dump({**shown, "data": data, "model": model}, sort_keys=False)


def data_name(source: str) -> str:
    """Last part of a path: the rest says where people keep their files."""
    return source if re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", source) else Path(source).name or source


def _json(path: Path) -> Any:
    return read_facts(path) if path.is_file() else None


def _metadata(kept: Mapping[str, Any], records: Mapping[str, Any], license: str | None) -> dict[str, Any]:
    tags = [*TAGS, *(tag for tag in kept.get("tags") or [] if tag not in TAGS)]
    front = {
        **({"license": license} if license else {}),
        "library_name": "diffusers",
        "pipeline_tag": "unconditional-image-generation",
        "tags": tags,
    }
    dataset = (records["data"] or {}).get("hub_dataset")
    if dataset is not None:
        front["datasets"] = list(dict.fromkeys([dataset, *(kept.get("datasets") or [])]))
    others = [entry for entry in kept.get("model-index") or [] if _name_of(entry) != RESULTS]  # not of other weights
    results = [*([] if records["evaluation"] is None else [_results(records)]), *others]
    front.update({"model-index": results} if results else {})
    return {**{name: value for name, value in kept.items() if name not in {*front, "model-index"}}, **front}


def _name_of(entry: Any) -> Any:
    return entry.get("name") if isinstance(entry, dict) else None


def _results(records: Mapping[str, Any]) -> dict[str, Any]:
    found = records["evaluation"]
    scores = found["scores"]
    of = f"{found['features']['description']}, {scores['num_samples']} samples, {scores['num_reals']} reals"
    metrics = [
        {"type": key, "name": f"{name} ({of})", "value": round(found["scores"][key], 4)} for key, name in SCORES.items()
    ]
    task = {"type": "unconditional-image-generation", "name": "Unconditional image generation"}
    dataset = {
        "type": (records["data"] or {}).get("hub_dataset") or "image-folder",
        "name": data_name(str(found["reals"]["source"])),
        "split": str(found["reals"]["split"]),
    }
    return {"name": RESULTS, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}
