"""Model and data set cards: the metadata block, and what the Hub refuses in it."""

import re
from typing import Any

import yaml

_BLOCK = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
_TEXT, _TEXTS = (str,), (str, list)
_SHAPES: dict[str, tuple[type, ...]] = {
    "license": _TEXTS, "language": _TEXTS, "datasets": _TEXTS, "metrics": _TEXTS, "base_model": _TEXTS,
    "tags": (list,), "library_name": _TEXT, "pipeline_tag": _TEXT, "license_name": _TEXT, "license_link": _TEXT,
    "thumbnail": _TEXT,
}  # fmt: skip


def metadata(card: str) -> dict[str, Any]:
    """The YAML at the head of `card`, {} without one.  Raises ValueError: it is no YAML, or no mapping."""
    block = _BLOCK.match(card)
    if block is None:
        return {}
    try:
        values = yaml.safe_load(block[1])
    except yaml.YAMLError as error:
        raise ValueError(f"Invalid YAML: {error}") from error
    if values is not None and not isinstance(values, dict):
        raise ValueError(f"Metadata must be a mapping, not {type(values).__name__}")
    return values or {}


def check(card: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about the metadata of `card`."""
    try:
        values = metadata(card)
    except ValueError as error:
        return [str(error)], []
    if not values:
        return [], ["empty or missing yaml metadata in repo card"]
    errors = [_shape_error(key, values[key]) for key in _SHAPES if values.get(key) is not None]
    return [error for error in errors if error] + _model_index_errors(values.get("model-index", [])), []


def _shape_error(key: str, value: Any) -> str | None:
    kinds = _SHAPES[key]
    texts = value if isinstance(value, list) else [value]
    if isinstance(value, kinds) and all(isinstance(text, str) for text in texts):
        return None
    return f'"{key}" must be {" or ".join("a string" if kind is str else "an array of strings" for kind in kinds)}'


def _model_index_errors(models: Any) -> list[str]:
    """What huggingface_hub's `model_index_to_eval_results` reads must be there."""
    try:
        for model in _array(models, "model-index"):
            _need(model, "name", str)
            for result in _array(_need(model, "results", list), "results"):
                _need(_need(result, "task", dict), "type", str)
                dataset = _need(result, "dataset", dict)
                _need(dataset, "name", str)
                _need(dataset, "type", str)
                for metric in _array(_need(result, "metrics", list), "metrics"):
                    _need(metric, "type", str)
                    _need(metric, "value", object)
    except ValueError as error:
        return [f'"model-index": {error}']
    return []


def _array(value: Any, name: str) -> list:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f'"{name}" must be an array of objects')
    return value


def _need(owner: dict, key: str, kind: type) -> Any:
    if not isinstance(owner.get(key), kind) or owner[key] is None:
        raise ValueError(f'"{key}" is required, of type {kind.__name__}')
    return owner[key]
