"""Text files that anybody may have written, as plain values: YAML and JSON, limited in size, depth and number of
values."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 2**22
"""size of a JSON file"""
MAX_CHARACTERS = 2**17
"""size of YAML, which is read some hundred times slower"""
MAX_VALUES = 5_000
"""values in YAML; what an alias stands for counts each time"""
MAX_DEPTH = 32
"""depth of YAML, in lists and sections"""


class Loader(yaml.SafeLoader):
    """YAML 1.1 reads `3e-3` as text, `no` as false and `2026-11-23` as a date; people mean number, word and name.

    Raises: yaml.YAMLError: what is beyond the limits, before it is made; and values that are not of their tag.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own interface
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str):
        if len(text) > MAX_CHARACTERS:
            raise yaml.YAMLError(f"it has {len(text):,} characters, and at most {MAX_CHARACTERS:,} are read")
        super().__init__(text)
        self._depth = self._count = 0
        self._counts: dict[str | None, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose as PyYAML does, and count what the aliases stand for."""
        event, before = self.peek_event(), self._count
        name = getattr(event, "anchor", None)
        is_alias = isinstance(event, yaml.AliasEvent)
        self._count += self._counts.get(name, MAX_VALUES) if is_alias and name in self.anchors else 1
        self._depth += 1
        if self._count > MAX_VALUES or self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"more than {MAX_VALUES:,} values with what aliases repeat, or {MAX_DEPTH} in one another",
                problem_mark=event.start_mark,
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        if name is not None and not is_alias:
            self._counts[name] = self._count - before
        return node

    def get_single_data(self) -> Any:
        """The document's values; the constructors' own errors as `YAMLError`."""
        try:
            return super().get_single_data()
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise yaml.YAMLError(f"a value that is not of its tag ({error})") from None


Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def from_yaml(text: str) -> Any:
    """Plain values of YAML.  Raises: ValueError: other text, or beyond the limits, and where."""
    try:
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        what = getattr(error, "problem", None) or error
        raise ValueError(f"no valid YAML{where}: {' '.join(str(what).split())}") from None


def read_facts(path: Path) -> dict[str, Any]:
    """The JSON or YAML object of a small text file.

    Raises: ValueError: no such file, too large a one, or another text.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"is larger than {MAX_BYTES >> 20} MiB")
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else from_yaml(text)
        if not isinstance(found, dict):
            raise ValueError(f"holds {type(found).__name__}, wanted names and values")
    except FileNotFoundError:
        raise ValueError(f"{path.parent} is not whole: {path.name} is missing; copy the folder again") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({' '.join(str(error).split())}); copy the folder again") from None
    return found
