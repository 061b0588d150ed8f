"""Reading of YAML and dotted overrides into a checked `RunConfig`, with errors that name the right setting."""

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from fastddpm.config.bounded_text import MAX_BYTES, from_yaml
from fastddpm.config.describe import options_of
from fastddpm.config.settings import RunConfig
from fastddpm.config.wrong_values import in_a_line, near

Config = TypeVar("Config")
_OF_EVERY_RUN = {"source", "streaming", "background", "max_bad_files", "cache_dir"}
_BEFORE = {"color_management": "off", "draft": False}
"""settings of `data` that are younger than some runs, with what was done then: their pictures keep their bytes"""


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
        values = read_yaml(found)
        _keep_old_meaning(values)
        values.setdefault("output_dir", f"runs/{found.stem}")
    for name, value in (overrides or {}).items():
        *sections, field = name.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ValueError(f"--{name}: {section} is no section; {near(name, options_of(kind))}")
        try:
            place[field] = from_yaml(value) if isinstance(value, str) else value
        except ValueError as error:
            raise ValueError(f"--{name} is {error}; quote it") from None
    return checked(kind, values)


def _keep_old_meaning(values: dict[str, Any]) -> None:
    """Give a config that a run of version 0.1 wrote what was done before there was a setting of it."""
    data = values.get("data")
    if isinstance(data, dict) and set(data) >= _OF_EVERY_RUN:
        for name, value in _BEFORE.items():
            data.setdefault(name, value)


def dotted(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"width": 32}}, as it comes of the command line, is {"train.width": 32}."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inside = dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        found |= inside
    return found


def config_from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The checked `RunConfig` of nested plain values, as they stand in YAML or JSON."""
    return checked(RunConfig, values)


def checked(kind: type[Config], values: Mapping[str, Any]) -> Config:
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values, default=_plain_path))
    except ValidationError as error:
        raise ValueError(in_a_line(error, kind)) from None
    except TypeError as error:  # of json
        raise ValueError(f"a setting's name is not plain text: {error}") from None


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


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
        values = from_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error.reason} at byte {error.start}); give a YAML file") from None
    except ValueError as error:
        raise ValueError(f"{path} is {error}; mend it there") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {type(values).__name__}, wanted settings such as 'train: {{batch_size: 64}}'")
    return values
