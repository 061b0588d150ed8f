"""Settings described: their names, types, meanings, and how two configs differ."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic.fields import FieldInfo

from fastddpm.config.checks import value_of


def to_yaml(config: Any) -> str:
    """Every value of a config, written out; `load_config` reads it back."""
    return yaml.safe_dump(json.loads(json.dumps(asdict(config))), sort_keys=False)


def field_names(kind: type) -> list[str]:
    """The dotted name of every field of a kind of config, in order."""
    return [name for name, _, _ in walk_fields(kind)]


def walk_fields(owner: Any, prefix: str = "") -> Iterator[tuple[str, FieldInfo, str]]:
    """(dotted name, field, type as text) of every setting; a class's own before those of its bases."""
    hints = get_type_hints(owner)
    named = (name for base in owner.__mro__ for name in vars(base).get("__annotations__", ()))
    for name in dict.fromkeys(name for name in named if name in owner.__pydantic_fields__):
        field = owner.__pydantic_fields__[name]
        if is_dataclass(hints[name]):
            yield from walk_fields(hints[name], f"{prefix}{name}.")
        else:
            yield prefix + name, field, _type_text(hints[name])


class Option(NamedTuple):
    """A field's name on the command line, with its type, default and meaning."""

    field: str
    """dotted name"""
    text: str
    """type"""
    shown: str
    """default"""
    meaning: str

    @property
    def is_required(self) -> bool:
        """True for a field without a default."""
        return self.shown == REQUIRED


REQUIRED = "required"


def options_of(kind: type) -> dict[str, Option]:
    """Options of a kind of request or config by name: its fields; what it makes is put at `--out` everywhere."""
    found = {
        name: Option(name, text, REQUIRED if field.is_required() else _plain(field.default), field.description or "")
        for name, field, text in walk_fields(kind)
    }
    hidden = found.pop("output_dir", None)
    return found if hidden is None or "out" in found else {"out": hidden, **found}


def help_text(kind: type, positionals: Sequence[str] = ()) -> str:
    """A line an option, with its type and default, and its meaning under it; positionals and required ones first."""
    options, lines = options_of(kind), []
    others = sorted(
        set(options) - set(positionals), key=lambda name: (not options[name].is_required, [*options].index(name))
    )
    for name in [*positionals, *others]:
        option = options[name]
        shown = name.rpartition(".")[2].upper() if name in positionals else f"--{name}"
        lines.append(f"  {shown}  {option.text} = {option.shown}")
        lines.append(textwrap.indent(textwrap.fill(" ".join(option.meaning.split()), 100), " " * 8))
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return (
        yaml.safe_dump(json.loads(json.dumps(value, default=str)), default_flow_style=True)
        .removesuffix("\n")
        .removesuffix("\n...")
    )


def _type_text(kind: Any) -> str:
    if kind is NoneType:
        return "null"
    if get_origin(kind) is Literal:
        return " | ".join(repr(choice) for choice in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(_type_text(choice) for choice in get_args(kind))
    if get_args(kind)[1:] == (...,):
        return f"tuple[{_type_text(get_args(kind)[0])}, ...]"
    if get_origin(kind) is dict:
        return "settings"
    return kind.__name__ if not get_args(kind) else str(kind)


HARMLESS = (
    "output_dir", "data.cache_dir", "data.on_bad_file", "data.max_bad_files", "data.allow_change",
    "data.color_management", "data.draft",
    "train.num_images_seen", "train.num_processes", "train.num_threads", "train.log_every", "train.evaluate_every",
    "train.checkpoint_every", "train.keep_checkpoints", "num_samples", "train.resume", "train.compile",
    "train.hang_timeout", "train.gradient_checkpointing", "train.micro_batch_size", "model.attention_backend",
    "push_to_hub",
)  # fmt: skip
"""settings that may change when a run goes on, beside all of `sample`, `watch` and `hub`; of those that make the images
the images themselves are compared"""


def differences(old: Any, new: Any) -> list[tuple[str, Any, Any, bool]]:
    """(dotted name, old value, new value, whether a run may go on with it) of each setting that differs; both configs
    are of one kind."""
    found = []
    for name in field_names(type(new)):
        before, after = value_of(old, name), value_of(new, name)
        if before != after:
            found.append((name, before, after, name in HARMLESS or name.startswith(("sample.", "watch.", "hub."))))
    return found
