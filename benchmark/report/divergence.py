"""Where two runs part: the first record that differs, and in what."""

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from benchmark.records.events import Event, flatten
from benchmark.records.folder import RunRecord

NAMES = ("run_id", "stage_id")
"""Fields that name code and machine rather than say what happened."""

NAMED = 3
"""Differing fields of a record that are spelt out."""


def first_difference(a: RunRecord, b: RunRecord) -> str | None:
    """The first record in which two runs differ, in words; None if all are the same.

    Times, memory and ids are left out: no two runs have them in common.

    Returns:
        Such as "train at step 40: loss 2.531 against 2.532".
    """
    for mine, theirs in zip_longest(a.events, b.events):
        if mine is None or theirs is None or mine["kind"] != theirs["kind"]:
            return f"{_place(mine)} against {_place(theirs)}"
        if differing := list(_differing(mine, theirs)):
            more = f" and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
            return f"{_place(mine)}: {', '.join(differing[:NAMED])}{more}"
    return None


def _differing(mine: Event, theirs: Event) -> Iterator[str]:
    """Fields that differ, with both values."""
    old, new = _fields(mine), _fields(theirs)
    for name in {**old, **new}:
        one, other = old.get(name, "nothing"), new.get(name, "nothing")
        if str(one) != str(other):
            yield f"{name} {' against '.join(_told_apart(one, other))}"


def _fields(event: Event) -> dict[str, Any]:
    """What a record says by dotted name, entries of lists by their number."""
    told = {key: value for key, value in event.items() if not _passes(key)}
    return flatten({key: _numbered(value) for key, value in told.items()})


def _passes(key: str) -> bool:
    return key in NAMES or "seconds" in key or "memory" in key


def _numbered(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _numbered(item) for key, item in value.items()}
    return dict(enumerate(value)) if isinstance(value, list) else value


def _told_apart(one: object, other: object) -> tuple[str, str]:
    """Both values, numbers with as few digits as tell them apart."""
    if isinstance(one, float) and isinstance(other, float):
        pairs = ((f"{one:.{digits}g}", f"{other:.{digits}g}") for digits in range(5, 18))
        return next((pair for pair in pairs if pair[0] != pair[1]), (str(one), str(other)))
    return str(one), str(other)


def _place(event: Event | None) -> str:
    if event is None:
        return "no further record"
    return f"{event['kind']} at step {event['step']}" if "step" in event else str(event["kind"])
