"""Whether a value from YAML is what an annotation asks for, and what that is in words."""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Literal, get_args, get_origin

_SCALARS: dict[object, tuple[tuple[type, ...], str]] = {
    float: ((int, float), "a number"),
    int: ((int,), "a whole number"),
    str: ((str,), "text"),
    bool: ((bool,), "true or false"),
    type(None): ((type(None),), "null"),
}
"""What values of a simple annotation may be, and in words."""

_LISTS = (list, tuple, Sequence, set, frozenset)


def options(hint: object) -> tuple[object, ...]:
    """The alternatives of an annotation; itself if it has none."""
    return get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def inner(hint: object, key: str) -> object:
    """Annotation of what a dataclass, mapping or list of this annotation holds; None if unknown."""
    for option in options(hint):
        if is_dataclass(option):
            return typing.get_type_hints(option).get(key)
        if get_origin(option) in (dict, Mapping, *_LISTS) and (of := get_args(option)):
            return of[-1] if of[-1] is not Ellipsis else of[0]
    return None


def fits(value: object, hint: object) -> bool:
    """Whether a value is what an annotation asks for; a whole number is a number, true is none.

    Annotations that say nothing of what YAML can hold fit everything.
    """
    return any(_fits_one(value, option) for option in options(hint))


def _fits_one(value: object, hint: object) -> bool:
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
    return True


def described(hint: object) -> str:
    """What an annotation asks for, in words, such as "a list of whole numbers"."""
    return " or ".join(_described_one(option) for option in options(hint))


def _described_one(hint: object) -> str:
    if get_origin(hint) is Literal:
        return f"one of {list(get_args(hint))}"
    if hint in _SCALARS:
        return _SCALARS[hint][1]
    origin, of = get_origin(hint) or hint, inner(hint, "")
    if origin in _LISTS:
        return "a list" if of is None else f"a list, each {described(of)}"
    return "a mapping of keys to values"
