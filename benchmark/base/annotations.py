"""Whether a value from YAML is what an annotation asks for, and what that is in words.

Numbers may be annotated with the interval where they must lie: `Annotated[float, In("(0, 1]")]`.
"""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

_SCALARS: dict[object, tuple[tuple[type, ...], str]] = {
    float: ((int, float), "a number"),
    int: ((int,), "a whole number"),
    str: ((str,), "text"),
    bool: ((bool,), "true or false"),
    type(None): ((type(None),), "null"),
}
"""What values of a simple annotation may be, and in words."""

_LISTS = (list, tuple, Sequence, set, frozenset)


@dataclass(frozen=True)
class In:
    """Where a number must lie, such as "(0, 1]", which includes 1; NaN lies nowhere."""

    interval: str

    def __contains__(self, value: Any) -> bool:  # noqa: ANN401 - as `in` allows
        low, high = map(float, self.interval[1:-1].split(","))
        is_high = value >= low if self.interval[0] == "[" else value > low
        return is_high and (value <= high if self.interval[-1] == "]" else value < high)


Count = Annotated[int, In("[0, inf)")]
Size = Annotated[int, In("[1, inf)")]
Share = Annotated[float, In("(0, 1]")]
Positive = Annotated[float, In("(0, inf)")]
NotNegative = Annotated[float, In("[0, inf)")]


def options(hint: object) -> tuple[object, ...]:
    """The alternatives of an annotation; itself if it has none."""
    return get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def hints(of: Any) -> dict[str, Any]:  # noqa: ANN401 - a class or a function
    """Annotations by name, as far as they can be known: some names are there for mypy only."""
    try:
        return typing.get_type_hints(of, include_extras=True)
    except (NameError, TypeError):
        return {}


def inner(hint: object, key: str) -> object:
    """Annotation of what a dataclass, mapping or list of this annotation holds; None if unknown."""
    for option in options(hint):
        if is_dataclass(option):
            return hints(option).get(key)
        if get_origin(option) in (dict, Mapping, *_LISTS) and (of := get_args(option)):
            return of[-1] if of[-1] is not Ellipsis else of[0]
    return None


def fits(value: object, hint: object) -> bool:
    """Whether a value is what an annotation asks for; a whole number is a number, true is none.

    Annotations that say nothing of what YAML can hold fit everything.
    """
    return any(_fits_one(value, option) for option in options(hint))


def _fits_one(value: object, hint: object) -> bool:
    if get_origin(hint) is Annotated:
        kind, *marks = get_args(hint)
        return fits(value, kind) and all(value in mark for mark in marks if isinstance(mark, In))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint in _SCALARS:
        is_of_kind = isinstance(value, _SCALARS[hint][0])
        return is_of_kind and isinstance(value, bool) <= (hint is bool)
    origin, of = get_origin(hint) or hint, inner(hint, "")
    if origin in _LISTS:
        return isinstance(value, list | tuple) and all(fits(v, of) for v in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(fits(v, of) for v in value.values())
    return not is_dataclass(hint) or isinstance(value, typing.cast(type, hint))


def described(hint: object) -> str:
    """What an annotation asks for, in words, such as "a list, each a whole number"."""
    return " or ".join(_described_one(option) for option in options(hint))


def _described_one(hint: object) -> str:
    if get_origin(hint) is Annotated:
        kind, *marks = get_args(hint)
        where = [f" in {mark.interval}" for mark in marks if isinstance(mark, In)]
        return described(kind) + "".join(where)
    if get_origin(hint) is Literal:
        return f"one of {list(get_args(hint))}"
    if hint in _SCALARS:
        return _SCALARS[hint][1]
    origin, of = get_origin(hint) or hint, inner(hint, "")
    if origin in _LISTS:
        return "a list" if of is None else f"a list, each {described(of)}"
    return "a mapping of keys to values"
