"""Building blocks of requests and settings: strict frozen dataclasses whose wrong values are told in one line."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from fastddpm.config.wrong_values import in_a_line

T = TypeVar("T")
Kind = TypeVar("Kind", bound=type)

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
"""share of a whole, below all of it"""
Part = Annotated[float, Field(gt=0, lt=1)]
"""share of a whole, neither none nor all"""
Level = Annotated[int, Field(ge=0, lt=256)]
"""level of a colour"""
File = Annotated[Path, Field(strict=False)]
"""text is a path too"""
Several = Annotated[tuple[T, ...], Field(strict=False)]
"""a list is taken too"""
ClassLabel = str | int
"""a name, or a number; text first, so that `007` stays a name"""

_STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def strict(kind: Kind) -> Kind:
    """Make a frozen dataclass that takes values of its fields' types only; the strings under fields are their help.

    A wrong value is a `ValueError` of one line.
    """
    made: Any = dataclass(frozen=True, kw_only=True, config=_STRICT)(kind)
    for name, field in made.__pydantic_fields__.items():
        owners = (getattr(base, "__pydantic_fields__", {}) for base in made.__mro__)
        field.description = next((of[name].description for of in owners if name in of and of[name].description), None)
    made.__init__ = _explained(made.__init__)
    return made


def _explained(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def checked(self: Any, *arguments: Any, **values: Any) -> None:
        try:
            init(self, *arguments, **values)
        except ValidationError as error:
            raise ValueError(in_a_line(error, type(self))) from None

    return checked
