"""Options of a verb from a strict dataclass: its fields are the options, the texts under them the help."""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser, set_loader

from fastddpm.config.bounded_text import from_yaml
from fastddpm.config.describe import help_text, options_of
from fastddpm.config.reading import checked, find_config, read_yaml
from fastddpm.config.wrong_values import near, wrong

Kind = TypeVar("Kind")
set_loader("ours", from_yaml, exceptions=(ValueError,))


def read_words(
    kind: type[Kind], words: Sequence[str], *, positionals: Sequence[str] = (), config: str | None = ""
) -> Kind:
    """The request, or config, that the words after a verb ask for.

    Args:
        positionals, config: as of `Verb`.
    Raises: ValueError: no such option, a value it does not take, or values that do not fit together.
    """
    options = options_of(kind)
    takes_file = config != ""
    given = _by_option(words, {name: option.text for name, option in options.items()}, positionals, takes_file)
    file = given.pop("config", config)
    missing = [name for name, option in options.items() if option.is_required and name not in given]
    if missing and not file:
        raise ValueError(_missing(missing, positionals))
    given = {options[name].field if name in options else name: text for name, text in given.items()}
    inside = {name: text for name, text in given.items() if name not in {option.field for option in options.values()}}
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, parser_mode="ours")
    parser.add_class_arguments(kind, as_group=False)
    parser.add_argument("--config", action="config")
    ready = [f"--{name}={text}" for name, text in given.items() if name not in inside]
    try:
        asked = parser.parse_args([*_words_of_file(file, kind), *ready]).as_dict()
    except ArgumentError as error:
        raise ValueError(_in_a_line(error.message, kind, options, given)) from None
    asked.pop("config", None)
    for name, text in inside.items():
        _put(asked, name, from_yaml(text))
    return checked(kind, asked)


def help_of(verb: str, kind: type, positionals: Sequence[str], takes_file: bool) -> str:
    """Text of a verb's `--help`."""
    words = [
        *map(_shown, positionals),
        *(["[--config FILE] [--dry_run]"] if takes_file else []),
        "[--option VALUE ...]",
    ]
    lines = [f"usage: fastddpm {verb} {' '.join(words)}", "", str(inspect.getdoc(kind)), ""]
    if takes_file:
        lines.append("  --config FILE\n        YAML file, or name of a packaged one; options win over it.")
        lines.append("  --dry_run\n        Print the resolved config and stop.")
    return "\n".join(lines) + "\n" + help_text(kind, positionals)


def _by_option(
    words: Sequence[str], kinds: Mapping[str, str], positionals: Sequence[str], takes_file: bool
) -> dict[str, str]:
    """Options to YAML texts; what stands without a name goes to the positionals."""
    rest, found, free = list(words), dict[str, str](), list[str]()
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            free.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        wanted = "file" if name == "config" and takes_file else _kind_of(name, kinds, value or " ".join(rest[:1]))
        taken = [value] if equals else _values(rest, wanted)
        if not "".join(taken):
            raise ValueError(f"--{name} has no value; write --{name} {'FILE' if wanted == 'file' else 'VALUE'}")
        found[name] = _as_yaml(taken, wanted)
    ones = [name for name in positionals if "tuple[" not in kinds[name]]
    found |= dict(zip(ones, free, strict=False))
    if more := free[len(ones) :]:
        if len(ones) == len(positionals):
            raise ValueError(f"got {more[0]!r}; wanted --option VALUE")
        found[positionals[-1]] = json.dumps(more)
    return found


def _kind_of(name: str, kinds: Mapping[str, str], value: str) -> str:
    """The type of an option as text; of one inside of a table of settings, any."""
    if name in kinds:
        return kinds[name]
    if any(name.startswith(f"{table}.") for table, kind in kinds.items() if kind == "settings"):
        return "any"
    if any(option.startswith(f"{name}.") for option in kinds):
        raise ValueError(f"--{name} is {value}; wanted its settings one by one, as --{name}.NAME VALUE")
    raise ValueError(f"unknown setting {name}: {near(name, kinds)}")


def _values(rest: list[str], wanted: str) -> list[str]:
    """Takes the words of an option's value off `rest`: none for a flag, all up to the next option for a list."""
    if wanted == "bool" and rest[:1] not in (["true"], ["false"]):
        return ["true"]
    most = len(rest) if "tuple[" in wanted else 1
    count = next((i for i, word in enumerate(rest[:most]) if word.startswith("--")), min(most, len(rest)))
    taken, rest[:] = rest[:count], rest[count:]
    return taken


def _as_yaml(taken: Sequence[str], wanted: str) -> str:
    first = taken[0]
    is_whole = first == "null" or (first.startswith("[") and first.endswith("]"))
    may_be_text = not wanted.startswith("tuple[") or (wanted.endswith("| str") and not first.isdigit())
    if len(taken) == 1 and (is_whole or may_be_text):
        return first
    return json.dumps(taken) if "tuple[str" in wanted else f"[{', '.join(taken)}]"


def _words_of_file(name: str | None, kind: type) -> list[str]:
    if not name:
        return []
    path = find_config(name)
    read_yaml(path)  # says where it is broken
    folder = [f"--output_dir=runs/{path.stem}"] if "output_dir" in kind.__pydantic_fields__ else []  # type: ignore[attr-defined]
    return [*folder, f"--config={path}"]


def _put(asked: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        asked = asked.setdefault(section, {})
    asked[last] = value


def _shown(positional: str) -> str:
    return positional.rpartition(".")[2].upper()


def _missing(names: Sequence[str], positionals: Sequence[str]) -> str:
    shown = [_shown(name) for name in positionals if name in names]
    shown += [f"--{name}" for name in names if name not in positionals]
    return f"{' and '.join(shown)} {'is' if len(shown) == 1 else 'are'} missing; see --help"


def _in_a_line(said: str, kind: type, options: Mapping[str, Any], given: Mapping[str, str]) -> str:
    """jsonargparse's several lines as one: got, wanted and what to do."""
    if found := re.match(r"Group '([\w.]+)' does not accept option '([\w.]+)'|Option '([\w.]+)' is not accepted", said):
        name = found[3] or f"{found[1]}.{found[2]}"
        return f"unknown setting {name}: {near(name, options)}"
    if found := re.match(r'Parser key "([\w.]+)"', said):
        got = re.findall(r"(?:Given value|Got value|load config): ?(.*)|Unable to load config (.*)", said)
        text = given.get(found[1], "".join(got[-1]).strip("'\"") if got else "of another type")
        own = wrong(kind, found[1], from_yaml(text))
        return own or f"{found[1]} is {text}; wanted {options[found[1]].text if found[1] in options else 'settings'}"
    return " ".join(said.split())
