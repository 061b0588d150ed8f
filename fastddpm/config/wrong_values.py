"""A wrong setting in one line: got, wanted, what to do; and which one was meant."""

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fastddpm.config.borrowed_names import borrowed
from fastddpm.config.describe import options_of, walk_fields


def in_a_line(error: ValidationError, kind: type) -> str:
    """Say what is wrong with the values of a kind of config: got, wanted, what to do."""
    said = "; ".join(_explain(found, name, kind) for name, found in _by_name(error).items())
    return said.replace("\n", "\\n")


def wrong(kind: type, name: str, value: Any) -> str | None:
    """Say what is wrong with a value of one setting, whatever the others are; None: nothing by itself."""
    values: Any = value
    for part in reversed(name.split(".")):
        values = {part: values}
    try:
        TypeAdapter(kind).validate_json(json.dumps(values))
    except ValidationError as error:
        found = _by_name(error)
        return _explain(found[name], name, kind) if name in found else None
    return None


def _by_name(error: ValidationError) -> dict[str, Any]:
    """Complaint about each setting: each branch of a union says something, and the closest one is told."""
    told: dict[str, Any] = {}
    for found in error.errors(include_url=False):
        name = _name_of(found)
        told[name] = max(told.get(name, found), found, key=_closeness)
    return told


def _closeness(error: Any) -> tuple[bool, int]:
    return error["type"] in BOUNDS, len(error["loc"])


def _name_of(error: Any) -> str:
    return ".".join(part for part in error["loc"] if isinstance(part, str) and not _UNION_TAG.fullmatch(part))


def near(name: str, names: Iterable[str], mark: str = "--") -> str:
    """The one of `names` that was meant, as a question."""
    names = list(names)
    if known := borrowed(name, names):
        setting, note = known
        return f"did you mean {mark}{setting}?{note and f' It takes: {note}'}"
    by_last: dict[str, list[str]] = {}
    for each in names:
        by_last.setdefault(each.rpartition(".")[2], []).append(each)
    last = name.replace("-", "_").rpartition(".")[2]
    whole = {each: [each] for each in names}
    tries = ((last, by_last, 0.8), (name, whole, 0.6), (last, by_last, 0.6))
    found = (places[c] for word, places, cutoff in tries for c in difflib.get_close_matches(word, places, 1, cutoff))
    meant = next(found, [])
    return f"did you mean {' or '.join(f'{mark}{n}' for n in meant)}?" if meant else "see --help for the names"


def _explain(error: Any, name: str, kind: type) -> str:
    if error["type"] == "unexpected_keyword_argument":
        inside = next(iter(error["input"]), None) if isinstance(error["input"], dict) else None
        return f"unknown setting {name}: {near(name if inside is None else f'{name}.{inside}', options_of(kind))}"
    if error["type"] in ("missing", "missing_argument") and isinstance(error["loc"][-1], str):
        return f"{name} is missing: set it in the config or as --{'out' if name == 'output_dir' else name}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "finite_number":
        return f"{name} is {error['input']}; it must be finite"
    wanted = {n: text for n, _, text in walk_fields(kind)}.get(name, "a section of settings")
    if error["type"] in BOUNDS:
        bound = f"{BOUNDS[error['type']]} {next(iter(error['ctx'].values())):g}"
        return f"{name} is {error['input']}; it must be {bound}{', or null' if wanted.endswith('null') else ''}"
    said = f"{name} is {error['input']!r} ({type(error['input']).__name__}); wanted {wanted}"
    takes_list = (
        wanted.startswith("tuple[")
        and not isinstance(error["input"], list | dict)
        and error["loc"][-1:] == (name.rpartition(".")[2],)
    )
    return f"{said}: write --{name} '[{error['input']}]'" if takes_list else said


BOUNDS = {
    "greater_than_equal": "at least",
    "greater_than": "above",
    "less_than": "below",
    "less_than_equal": "at most",
}
_UNION_TAG = re.compile(
    r"int|float|str|bool|constrained-\w+|lax-or-strict\[.*|nullable\[.*|(literal|tuple|function-\w+)\[.*"
)
