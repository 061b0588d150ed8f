"""From YAML and dotted overrides to a checked `RunConfig`, with errors that name the right setting."""

import difflib
import json
import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from fastddpm.config.borrowed_names import borrowed
from fastddpm.config.describe import field_names, walk_fields
from fastddpm.config.settings import RunConfig


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `3e-3` as text, `no` as false and `2026-11-23` as a date; people mean number, word and name."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own interface
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)


Config = TypeVar("Config")


def load_config(path: str | Path | None, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read one experiment.

    Args:
        path: a YAML file, or the name of a packaged one (`quickstart`); None: overrides only.
        overrides: dotted field names to values, such as {"train.batch_size": 96}; text is read as YAML, as on the
            command line. They win over the file.
    Raises: ValueError: unknown key (with the nearest right name), wrong type, or values that do not fit together.
    """
    return load_config_of(RunConfig, path, overrides)


def load_config_of(kind: type[Config], path: str | Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The same for another kind of experiment."""
    values: dict[str, Any] = {}
    if path is not None:
        found = find_config(path)
        values = _read_yaml(found)
        values.setdefault("output_dir", f"runs/{found.stem}")
    for name, value in (overrides or {}).items():
        *sections, field = name.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ValueError(f"--{name}: {section} is no section; {near(name, kind)}")
        place[field] = yaml.load(value, Loader=_Loader) if isinstance(value, str) else value
    return _checked(kind, values)


def dotted(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"width": 32}}, as it comes of the command line, is {"train.width": 32}."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inside = dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        found |= inside
    return found


def config_from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The checked `RunConfig` of nested plain values, as they stand in YAML or JSON."""
    return _checked(RunConfig, values)


def _checked(kind: type[Config], values: Mapping[str, Any]) -> Config:
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values, default=_plain_path))
    except ValidationError as error:
        said = dict.fromkeys(
            _explain(e, kind) for e in error.errors(include_url=False)
        )  # each branch of a union says it
        raise ValueError("; ".join(said)) from None


def _plain_path(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ValueError(f"got a setting of type {type(value).__name__} ({value!r}); wanted numbers, words, lists or paths")


def find_config(path: str | Path) -> Path:
    """The file at `path`, or the packaged config of that name."""
    given = Path(path)
    if given.is_file():
        return given
    packaged = Path(str(files("fastddpm") / "configs"))
    if (packaged / f"{given.name.removesuffix('.yaml')}.yaml").is_file():
        return packaged / f"{given.name.removesuffix('.yaml')}.yaml"
    names = ", ".join(sorted(p.stem for p in packaged.glob("*.yaml")))
    raise ValueError(f"no config {str(path)!r}: give the path of a YAML file, or one of the packaged names: {names}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error.reason} at byte {error.start}); give a YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        what = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ValueError(f"{path} is no valid YAML{where}: {what}; mend it there") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {type(values).__name__}, wanted settings such as 'train: {{batch_size: 64}}'")
    return values


def near(name: str, kind: type) -> str:
    """The setting that was meant by a name that is none, as a question."""
    names = field_names(kind)
    if known := borrowed(name, names):
        setting, note = known
        return f"did you mean --{setting}?{note and f' It takes: {note}'}"
    by_last: dict[str, list[str]] = {}
    for each in names:
        by_last.setdefault(each.rpartition(".")[2], []).append(each)
    last = name.replace("-", "_").rpartition(".")[2]
    whole = {each: [each] for each in names}
    tries = ((last, by_last, 0.8), (name, whole, 0.6), (last, by_last, 0.6))
    found = (places[c] for word, places, cutoff in tries for c in difflib.get_close_matches(word, places, 1, cutoff))
    meant = next(found, [])
    return f"did you mean {' or '.join(f'--{n}' for n in meant)}?" if meant else "see --help for the names"


def _explain(error: Any, kind: type) -> str:
    name = ".".join(str(part) for part in error["loc"] if not isinstance(part, int) and part not in _UNION_TAGS)
    if error["type"] == "unexpected_keyword_argument":
        inside = next(iter(error["input"]), None) if isinstance(error["input"], dict) else None
        return f"unknown setting {name}: {near(name if inside is None else f'{name}.{inside}', kind)}"
    if error["type"] in ("missing", "missing_argument"):
        return f"{name} is missing: set it in the config or as --{name}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    kinds = {n: text for n, _, text in walk_fields(kind)}
    wanted = kinds.get(name, "a section of settings")
    said = f"{name} is {error['input']!r} ({type(error['input']).__name__}); wanted {wanted}"
    takes_list = (
        wanted.startswith("tuple[")
        and not isinstance(error["input"], list | dict)
        and error["loc"][-1:] == (name.rpartition(".")[2],)
    )
    return f"{said}: write --{name} '[{error['input']}]'" if takes_list else said


_UNION_TAGS = (
    "int",
    "float",
    "str",
    "bool",
    "literal[1,3]",
    "literal['auto']",
    "tuple[float,...]",
    "tuple[float, ...]",
)
